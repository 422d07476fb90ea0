"""A small MCP server of the legacy era that can be told to misbehave."""
import json
import os
import subprocess
import sys
import time

mode = sys.argv[1] if len(sys.argv) > 1 else ""
tools = ["echo", "pid", "die", "hang", "flood", "add_tool", "spawn", "steps", "last_words"]


def send(message):
    sys.stdout.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    sys.stdout.flush()


def answer(request, result):
    send({"id": request["id"], "result": result})


def list_tools(request):
    """Pages of three, so that there are several."""
    start = int(request.get("params", {}).get("cursor", 0))
    page = [
        {"name": name, "inputSchema": {"type": "object"}, "x-vendor": {"n": 12345678901234567890123}}
        for name in tools[start : start + 3]
    ]
    result = {"tools": page}
    if start + 3 < len(tools):
        result["nextCursor"] = str(start + 3)
    answer(request, result)


def flood():
    """Noise of every kind, 48 MB of it."""
    for _ in range(16):
        sys.stdout.write("x" * (1 << 20) + "\n")
        sys.stdout.write("y" * (1 << 20))
        sys.stdout.write('\n{"jsonrpc":"2.0","method":"notifications/none"}\n[1]\n' * 10000)
    sys.stdout.write("\n")
    sys.stderr.write(("e" * 100 + "\n") * 20000)


def call(request):
    name = request["params"]["name"]
    if name == "die":
        sys.stderr.write("out of luck\n")
        sys.stderr.flush()
        os._exit(7)
    if name == "hang":
        return
    if name == "flood":
        flood()
    if name == "steps":
        token = request["params"]["_meta"]["progressToken"]
        for step in range(50):
            send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
    if name == "add_tool":
        tools.append("added_%d" % len(tools))
        for _ in range(20):
            send({"method": "notifications/tools/list_changed"})
    if name == "spawn":
        child = subprocess.Popen(["sleep", "600"])
        return answer(request, {"pids": [os.getpid(), child.pid]})
    if name == "pid":
        return answer(request, {"pid": os.getpid()})
    answer(request, {"params": request["params"]})


for line in sys.stdin:
    request = json.loads(line)
    method = request.get("method")
    if method == "server/discover":
        if mode == "dies-of-discover":
            sys.exit(3)
        send({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
    elif method == "initialize":
        if mode == "mute":
            time.sleep(600)
        capabilities = {"tools": {"listChanged": True}}
        answer(request, {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": {"name": "s"}})
    elif method == "tools/list":
        list_tools(request)
    elif method == "tools/call":
        call(request)
    elif method == "ping":
        answer(request, {})
