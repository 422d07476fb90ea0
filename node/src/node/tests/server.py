"""A small MCP server for tests of whole nodes. Every call leaves a line in `calls` of its directory.

It speaks the legacy era, or, where its directory has a file `modern`, 2026-07-28.
"""
import json
import os
import sys
import time

home = sys.argv[1]
description = sys.argv[2] if len(sys.argv) > 2 else "as it was"
tools = ["echo", "hang", "steps", "die", "big", "wait", "change", "grow", "ask", "strict", "touch"]
stepping = []
asked = {}
modern = os.path.exists(os.path.join(home, "modern"))
subscribed = set()
listening = []
capabilities = {"tools": {"listChanged": True}, "prompts": {}, "resources": {"subscribe": True}, "completions": {}}
info = {"name": "test", "version": "1"}
prompts = [{"name": "greet", "description": description, "arguments": [{"name": "who"}], "x-vendor": 12345678901234567890123}]
resources = [{"uri": "test://fixed", "name": "fixed"}, {"uri": "test://slow", "name": "slow"}]
templates = [{"uriTemplate": "test://item/{id}", "name": "item"}]


def note(what):
    with open(os.path.join(home, "calls"), "a") as calls:
        calls.write(what + "\n")


def write(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def send(message):
    write(json.dumps({"jsonrpc": "2.0", **message}))


def answer(request, result):
    if modern:
        result = {"resultType": "complete", **result}
    send({"id": request["id"], "result": result})


def go_on():
    while not os.path.exists(os.path.join(home, "go")):
        time.sleep(0.005)


def refuse(request, code, message):
    send({"id": request["id"], "error": {"code": code, "message": message}})


def read(request):
    uri = request["params"]["uri"]
    note("read " + uri)
    if uri == "test://slow":
        go_on()
    if uri in ("test://fixed", "test://slow") or uri.startswith(("test://item/", "test://unlisted")):
        write('{"jsonrpc":"2.0","id":%s,"result":{"contents":[{"uri":%s,"text":"of %s","n":1e400}]%s}}' % (
            json.dumps(request["id"]), json.dumps(uri), home, ',"resultType":"complete","ttlMs":7,"cacheScope":"public"' if modern else ""))
    else:
        refuse(request, -32602 if modern else -32002, "Resource not found")


def updated(uri):
    if uri in subscribed:
        send({"method": "notifications/resources/updated", "params": {"uri": uri}})
    for request in listening:
        if uri in request["params"]["notifications"].get("resourceSubscriptions", []):
            meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
            send({"method": "notifications/resources/updated", "params": {"uri": uri, "_meta": meta}})


def listen(request):
    listening.append(request)
    meta = {"io.modelcontextprotocol/subscriptionId": request["id"]}
    wanted = request["params"]["notifications"]
    send({"method": "notifications/subscriptions/acknowledged", "params": {"notifications": wanted, "_meta": meta}})


def text(request, value):
    answer(request, {"content": [{"type": "text", "text": value}]})


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
        go_on()
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
    elif name == "touch":
        uri = request["params"]["arguments"]["uri"]
        text(request, "touched")
        updated(uri)
    elif name == "grow":
        tools.append("grown")
        text(request, "grown")
        send({"method": "notifications/tools/list_changed"})


for line in sys.stdin:
    line = line.rstrip("\n")
    request = json.loads(line)
    method = request.get("method")
    if method == "server/discover" and not modern:
        refuse(request, -32601, "Method not found")
    elif method == "server/discover":
        meta = {"io.modelcontextprotocol/serverInfo": info}
        answer(request, {"supportedVersions": ["2026-07-28"], "capabilities": capabilities, "instructions": "Be kind.", "_meta": meta})
    elif method == "initialize":
        send({"id": request["id"], "result": {"protocolVersion": "2025-11-25", "capabilities": capabilities, "serverInfo": info, "instructions": "Be kind."}})
    elif method == "tools/list":
        answer(request, {"tools": [tool(name) for name in tools]})
    elif method == "prompts/list":
        answer(request, {"prompts": prompts})
    elif method == "resources/list":
        answer(request, {"resources": resources})
    elif method == "resources/templates/list":
        answer(request, {"resourceTemplates": templates})
    elif method == "prompts/get":
        note("get " + request["params"]["name"])
        message = {"role": "user", "content": {"type": "text", "text": "Greet %s." % request["params"].get("arguments", {}).get("who")}}
        answer(request, {"messages": [message], "x-vendor": 1})
    elif method == "resources/read":
        read(request)
    elif method == "completion/complete":
        ref = request["params"]["ref"]
        answer(request, {"completion": {"values": [ref.get("name") or ref.get("uri")], "total": 1}})
    elif method == "resources/subscribe" and not modern:
        subscribed.add(request["params"]["uri"])
        answer(request, {})
    elif method == "resources/unsubscribe" and not modern:
        subscribed.discard(request["params"]["uri"])
        answer(request, {})
    elif method == "subscriptions/listen" and modern:
        listen(request)
    elif method == "vendor/thing":
        note("vendor")
        answer(request, {"said": request["params"]["x"]})
    elif method == "tools/call":
        call(request, line)
    elif method == "notifications/cancelled":
        note("cancelled")
    elif method == "ping":
        send({"id": request["id"], "result": {}})
    elif method is None and request.get("id") in asked:
        text(asked.pop(request["id"]), line)
    elif method and "id" in request:
        refuse(request, -32601, "Method not found")
