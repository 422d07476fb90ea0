"""A small MCP server for tests of whole nodes. Every call leaves a line in `calls` of its directory."""
import json
import os
import sys
import time

home = sys.argv[1]
description = sys.argv[2] if len(sys.argv) > 2 else "as it was"
tools = ["echo", "hang", "steps", "die", "big", "wait", "change", "grow", "ask", "strict"]
stepping = []
asked = {}


def note(what):
    with open(os.path.join(home, "calls"), "a") as calls:
        calls.write(what + "\n")


def write(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def send(message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def text(request, value):
    send({"id": request["id"], "result": {"content": [{"type": "text", "text": value}]}})


def tool(name):
    about = description if name == "change" else "a test"
    described = {"name": name, "description": about, "inputSchema": {"type": "object"}, "x-vendor": 12345678901234567890123}
    if name == "strict":
        number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
        described.update(inputSchema=number, outputSchema=number)
    return described


def echo(request, line):
    """What came, byte for byte, in a result that no typed model would carry unchanged."""
    result = '{"z":99999999999999999999999999,"content":[{"type":"text","text":%s},{"type":"x-new","n" : 1.0,"e":1e400}],"a":{"b":1,"a":2.50}}'
    write('{"jsonrpc":"2.0","id":%s,"result":%s}' % (json.dumps(request["id"]), result % json.dumps(line)))


def steps(request):
    """Fifty steps for each of several calls, in turn, once all of them are here."""
    stepping.append(request)
    if len(stepping) < request["params"]["arguments"]["of"]:
        return
    for step in range(50):
        for call in stepping:
            token = call["params"]["_meta"]["progressToken"]
            send({"method": "notifications/progress", "params": {"progressToken": token, "progress": step}})
    for call in stepping:
        text(call, "done")
    stepping.clear()


def call(request, line):
    global description
    name = request["params"]["name"]
    note(name)
    if name == "echo":
        echo(request, line)
    elif name == "steps":
        steps(request)
    elif name == "die":
        os._exit(7)
    elif name == "big":
        text(request, "x" * (1 << 20))
    elif name == "wait":
        while not os.path.exists(os.path.join(home, "go")):
            time.sleep(0.005)
        text(request, "went on")
    elif name == "change":
        description += ", changed"
        text(request, "changed")
        send({"method": "notifications/tools/list_changed"})
    elif name == "ask":
        question = request["params"]["arguments"]
        asked["question"] = request
        send({"id": "question", "method": question["method"], "params": question["params"]})
    elif name == "strict":
        n = request["params"]["arguments"]["n"]
        structured = {"n": n if n < 10 else str(n)}
        send({"id": request["id"], "result": {"content": [{"type": "text", "text": "kept"}], "structuredContent": structured}})
    elif name == "grow":
        tools.append("grown")
        text(request, "grown")
        send({"method": "notifications/tools/list_changed"})


for line in sys.stdin:
    line = line.rstrip("\n")
    request = json.loads(line)
    method = request.get("method")
    if method == "server/discover":
        send({"id": request["id"], "error": {"code": -32601, "message": "Method not found"}})
    elif method == "initialize":
        info = {"name": "test", "version": "1"}
        capabilities = {"tools": {"listChanged": True}}
        send({"id": request["id"], "result": {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info}})
    elif method == "tools/list":
        send({"id": request["id"], "result": {"tools": [tool(name) for name in tools]}})
    elif method == "tools/call":
        call(request, line)
    elif method == "notifications/cancelled":
        note("cancelled")
    elif method == "ping":
        send({"id": request["id"], "result": {}})
    elif method is None and request.get("id") in asked:
        text(asked.pop(request["id"]), line)
