"""An MCP server of 2026-07-28 that asks for input. Every call leaves a line in `calls` of its directory."""
import json
import os
import sys

home = sys.argv[1]
tools = ["ask", "ask_for_ever", "ask_nonsense", "ask_where", "where", "slow"]
tasks = {}
# Opaque to everybody else: nobody may so much as normalise it.
STATE = "st\u00e9te \u0000 {\"n\":1.50}\\/ =?base64?x?="


def note(what):
    with open(os.path.join(home, "calls"), "a") as calls:
        calls.write(what + "\n")


def write(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def answer(request, result):
    result.setdefault("resultType", "complete")
    write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result}))


def text(request, value):
    answer(request, {"content": [{"type": "text", "text": value}]})


def ask(request, line):
    """Two questions at once, then a round that only wants to be called again, then what came back."""
    params = request["params"]
    n = params["arguments"].get("n")
    if "requestState" not in params:
        form = {"message": "who?", "requestedSchema": {"type": "object", "properties": {}}, "n": n}
        asked = {"who": {"method": "elicitation/create", "params": form}, "roots": {"method": "roots/list"}}
        return answer(request, {"resultType": "input_required", "inputRequests": asked, "requestState": STATE})
    if params["requestState"] == STATE:
        state = STATE + json.dumps(params["inputResponses"], sort_keys=True)
        return answer(request, {"resultType": "input_required", "requestState": state})
    if not params["requestState"].startswith(STATE):
        return text(request, "a state that is not mine: " + repr(params["requestState"]))
    assert "inputResponses" not in params, line
    text(request, params["requestState"][len(STATE):])


def call(request, line):
    params = request["params"]
    name = params["name"]
    able = params["_meta"]["io.modelcontextprotocol/clientCapabilities"]
    note(name)
    if name == "where":
        text(request, home)
    elif name == "slow":
        tasks[len(tasks)] = {"status": "working"}
        created = {"createdAt": "2026-11-20T00:00:00Z", "lastUpdatedAt": "2026-11-20T00:00:00Z", "ttlMs": None, "pollIntervalMs": 1}
        answer(request, {"resultType": "task", "taskId": "task-%d" % (len(tasks) - 1), "status": "working", "x-n": 10**25, **created})
    elif name == "ask_where" and "inputResponses" in params:
        text(request, "here" if params["requestState"] == home else "elsewhere")
    elif "elicitation" not in able:
        error = {"code": -32021, "message": "Missing", "data": {"requiredCapabilities": {"elicitation": {}}}}
        write(json.dumps({"jsonrpc": "2.0", "id": request["id"], "error": error}))
    elif name == "ask":
        ask(request, line)
    elif name == "ask_where":
        asked = {"q": {"method": "elicitation/create", "params": {"message": "?"}}}
        answer(request, {"resultType": "input_required", "inputRequests": asked, "requestState": home})
    else:
        method = "elicitation/create" if name == "ask_for_ever" else "tools/call"
        asked = {"again": {"method": method, "params": {"message": "again?"}}}
        answer(request, {"resultType": "input_required", "inputRequests": asked})


def follow(request, method):
    """A task waits for input, has it, and is done; or is cancelled."""
    params = request["params"]
    task_id = params["taskId"]
    note(method + " " + task_id)
    task = tasks[int(task_id.split("-")[1])]
    if method == "tasks/update":
        task["told"] = params["inputResponses"]
        return answer(request, {})
    if method == "tasks/cancel":
        task["status"] = "cancelled"
        return answer(request, {})
    if task["status"] == "working":
        task["status"] = "input_required"
        task["inputRequests"] = {"q": {"method": "elicitation/create", "params": {"message": "?"}}}
    elif "told" in task:
        task["status"] = "completed"
        task["result"] = {"content": [{"type": "text", "text": json.dumps(task["told"])}], "home": home}
    times = {"createdAt": "2026-11-20T00:00:00Z", "lastUpdatedAt": "2026-11-20T00:00:00Z", "ttlMs": None}
    answer(request, {"taskId": task_id, **times, **task})


for line in sys.stdin:
    line = line.rstrip("\n")
    request = json.loads(line)
    method = request.get("method")
    if method == "server/discover":
        info = {"io.modelcontextprotocol/serverInfo": {"name": "modern", "version": "1"}}
        answer(request, {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "_meta": info, "ttlMs": 0, "cacheScope": "private"})
    elif method == "tools/list":
        schema = {"type": "object"}
        answer(request, {"tools": [{"name": name, "inputSchema": schema} for name in tools], "ttlMs": 0, "cacheScope": "private"})
    elif method == "tools/call":
        call(request, line)
    elif method in ("tasks/get", "tasks/update", "tasks/cancel"):
        follow(request, method)
    elif method == "notifications/cancelled":
        note("cancelled")
