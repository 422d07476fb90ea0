//! Prompts, resources, completion and subscriptions, in both eras; single servers; profiles; large catalogues.

use comity_protocol::constraints::Constraints;
use serde_json::{Value, json};

use super::{Node, client::Client};
use crate::face::Profile;

async fn legacy(client: &Client, method: &str, params: Value) -> Value {
    let text = client.request(json!(1), method, params).await.text().await;
    serde_json::from_str(&text.replace("1e999", "1")).unwrap()
}

async fn modern(client: &Client, method: &str, params: Value) -> Value {
    let text = client.modern(method, params).await.text().await;
    serde_json::from_str(&text.replace("1e999", "1")).unwrap()
}

#[tokio::test]
async fn what_there_is_is_advertised_and_listed_in_both_eras() {
    let node = Node::start().await;
    node.gateway.set_items();
    let old = node.client.initialize("2025-11-25").await;
    let expected = json!({
        "logging": {},
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "listChanged": true, "subscribe": true },
        "completions": {},
        "extensions": { "io.modelcontextprotocol/tasks": {} },
    });
    let discovered = modern(&node.client, "server/discover", json!({})).await;
    assert_eq!(discovered["result"]["capabilities"], expected);
    for (method, key, first) in [
        (
            "prompts/list",
            "prompts",
            json!({ "name": "greet", "arguments": [{ "name": "who" }], "x-vendor": 1 }),
        ),
        ("resources/list", "resources", json!({ "uri": "f:a", "name": "a" })),
        ("resources/templates/list", "resourceTemplates", json!({ "uriTemplate": "f:{x}/y", "name": "t" })),
    ] {
        assert_eq!(legacy(&old, method, json!({})).await["result"][key][0], first, "{method}");
        let page = modern(&node.client, method, json!({})).await["result"].clone();
        assert_eq!(
            (&page[key][0], &page["resultType"], &page["cacheScope"]),
            (&first, &json!("complete"), &json!("private"))
        );
    }
}

#[tokio::test]
async fn each_request_is_about_what_its_params_name() {
    let node = Node::start().await;
    node.gateway.set_items();
    let old = node.client.initialize("2025-11-25").await;
    let prompt = json!({ "ref": { "type": "ref/prompt", "name": "greet" }, "argument": { "name": "who", "value": "a" } });
    let template = json!({ "ref": { "type": "ref/resource", "uri": "f:{x}/y" }, "argument": { "name": "x", "value": "" } });
    for (method, params, target) in [
        ("prompts/get", json!({ "name": "greet", "arguments": { "who": "Ana" } }), "prompt: greet"),
        ("resources/read", json!({ "uri": "f:a" }), "resource: f:a"),
        ("completion/complete", prompt, "prompt: greet"),
        ("completion/complete", template, "template: f:{x}/y"),
    ] {
        for result in
            [legacy(&old, method, params.clone()).await, modern(&node.client, method, params.clone()).await]
        {
            let said = &result["result"];
            assert_eq!((&said["method"], &said["target"]), (&json!(method), &json!(target)));
            for (key, value) in params.as_object().unwrap() {
                assert_eq!(&said["params"][key], value);
            }
        }
    }
    for (method, params) in [
        ("resources/read", json!({})),
        ("prompts/get", json!({ "name": 7 })),
        ("completion/complete", json!({})),
        ("completion/complete", json!({ "ref": { "type": "ref/tool", "name": "x" } })),
        ("completion/complete", json!({ "ref": { "type": "ref/prompt" } })),
        ("resources/subscribe", json!({})),
    ] {
        assert_eq!(legacy(&old, method, params).await["error"]["code"], -32602, "{method}");
    }
}

#[tokio::test]
async fn a_legacy_client_hears_of_the_resources_that_it_subscribed_to() {
    let node = Node::start().await;
    let old = node.client.initialize("2025-11-25").await;
    let mut stream = old.get().await;
    let subscribe = |uri: &'static str| legacy(&old, "resources/subscribe", json!({ "uri": uri }));
    assert_eq!(subscribe("f:a").await["result"], json!({}));
    assert_eq!(subscribe("f:b").await["result"], json!({}));
    assert_eq!(subscribe("f:secret").await["error"]["code"], -32602);
    node.gateway.update("f:secret");
    node.gateway.update("f:a");
    let told = stream.message().await.unwrap();
    assert_eq!(
        (&told["method"], &told["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("f:a"))
    );
    assert_eq!(legacy(&old, "resources/unsubscribe", json!({ "uri": "f:a" })).await["result"], json!({}));
    node.gateway.update("f:a");
    node.gateway.update("f:b");
    assert_eq!(stream.message().await.unwrap()["params"]["uri"], "f:b");
    drop(stream);
    let mut again = old.get().await;
    let told = [again.message().await.unwrap(), again.message().await.unwrap()];
    assert!(told.iter().any(|told| told["params"]["uri"] == "f:b"), "what it heard nobody knows: {told:?}");
}

#[tokio::test]
async fn a_modern_client_hears_of_what_it_listens_to_and_nothing_else() {
    let node = Node::start().await;
    node.gateway.set_items();
    let filter = json!({ "notifications": {
        "promptsListChanged": true,
        "resourcesListChanged": true,
        "resourceSubscriptions": ["f:a", "f:secret"],
    }});
    let mut stream = node.client.modern("subscriptions/listen", filter).await;
    let opened = stream.message().await.unwrap();
    let accepted =
        json!({ "promptsListChanged": true, "resourcesListChanged": true, "resourceSubscriptions": ["f:a"] });
    assert_eq!(opened["params"]["notifications"], accepted);
    node.gateway.update("f:b");
    node.gateway.update("f:a");
    let told = stream.message().await.unwrap();
    assert_eq!(
        (&told["method"], &told["params"]["uri"]),
        (&json!("notifications/resources/updated"), &json!("f:a"))
    );
    assert_eq!(told["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    node.gateway.set_tools(&["only_a_tool"]);
    let told = [
        stream.message().await.unwrap()["method"].clone(),
        stream.message().await.unwrap()["method"].clone(),
    ];
    assert_eq!(told, ["notifications/prompts/list_changed", "notifications/resources/list_changed"]);
}

#[tokio::test]
async fn one_server_by_itself_speaks_for_itself() {
    let node = Node::start().await;
    let raw = node.client.at("/mcp/raw/fake");
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let opened = raw.request(json!(0), "initialize", params).await.text().await;
    let result: Value = serde_json::from_str(&opened.replace("1e999", "1")).unwrap();
    let result = &result["result"];
    assert_eq!(
        (&result["serverInfo"]["name"], &result["instructions"]),
        (&json!("Fake"), &json!("Be kind."))
    );
    assert!(opened.contains(r#""x-vendor":1e999"#), "{opened}");
    let tools = modern(&raw, "tools/list", json!({})).await["result"].clone();
    assert_eq!(tools["tools"][0]["name"], "comity_find_tools", "its own, not the node's");
    let called = modern(&raw, "tools/call", json!({ "name": "comity_find_tools" })).await;
    assert_eq!(called["error"]["message"], "refused: no tool comity_find_tools", "by the server");
    let vendor = modern(&raw, "vendor/thing", json!({ "x": 1 })).await;
    assert_eq!(
        (&vendor["result"]["method"], &vendor["result"]["target"]),
        (&json!("vendor/thing"), &json!("server"))
    );
    for method in ["tools/nonsense", "initialize", "sampling/createMessage", "ping", "resources/subscribe"] {
        assert_eq!(modern(&raw, method, json!({})).await["error"]["code"], -32601, "{method}");
    }
    assert_eq!(modern(&node.client, "vendor/thing", json!({})).await["error"]["code"], -32601);
    for path in ["/mcp/raw/nobody", "/mcp/raw/", "/mcp/other", "/elsewhere"] {
        assert_eq!(node.client.at(path).modern("tools/list", json!({})).await.status, 404, "{path}");
    }
}

#[tokio::test]
async fn a_session_belongs_to_its_endpoint() {
    let node = Node::start().await;
    let raw = node.client.at("/mcp/raw/fake");
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": {} });
    let opened = raw.request(json!(0), "initialize", params).await;
    let raw = raw.with("mcp-session-id", opened.header("mcp-session-id"));
    assert_eq!(raw.request(json!(1), "ping", json!({})).await.status, 200);
    assert_eq!(raw.at("/mcp").request(json!(1), "ping", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_profile_shows_and_demands_what_it_says() {
    let node = Node::with(|config| {
        let constraints = Constraints::from_json(&json!({ "allow_locations": ["DE"] })).unwrap();
        let tools = Some(["echo".to_owned()].into());
        let profile =
            Profile { tools, constraints, instructions: Some("Only echo.".into()), ..Profile::default() };
        config.profiles.insert("work".into(), profile);
        let nothing = Profile { servers: Some(["other".parse().unwrap()].into()), ..Profile::default() };
        config.profiles.insert("nothing".into(), nothing);
    })
    .await;
    let work = node.client.at("/mcp/work");
    let listed = modern(&work, "tools/list", json!({})).await["result"]["tools"].clone();
    assert_eq!((listed.as_array().unwrap().len(), &listed[0]["name"]), (1, &json!("echo")));
    assert_eq!(modern(&work, "server/discover", json!({})).await["result"]["instructions"], "Only echo.");
    let hidden = modern(&work, "tools/call", json!({ "name": "routed" })).await;
    assert_eq!(hidden["error"]["code"], -32602);
    work.modern("tools/call", json!({ "name": "echo" })).await;
    let caller = node.gateway.next_caller().await;
    assert_eq!(caller.endpoint_constraints.allow_locations.unwrap().to_string(), "DE");
    let nothing = modern(&node.client.at("/mcp/nothing"), "tools/list", json!({})).await;
    assert_eq!(nothing["result"]["tools"], json!([]));
}

#[tokio::test]
async fn a_large_catalogue_is_found_by_words_and_called_by_name() {
    let node = Node::with(|config| config.defer_tools_above = Some(1)).await;
    let old = node.client.initialize("2025-11-25").await;
    let listed = legacy(&old, "tools/list", json!({})).await["result"]["tools"].clone();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["comity_call_tool", "comity_find_tools"]);
    let call = |name: &'static str, arguments: Value| {
        legacy(&old, "tools/call", json!({ "name": name, "arguments": arguments }))
    };
    let found = call("comity_find_tools", json!({ "query": "echo" })).await["result"].clone();
    assert_eq!(found["structuredContent"]["tools"][0]["name"], "echo");
    assert_eq!(found["structuredContent"]["total"], 2);
    let called = call("comity_call_tool", json!({ "name": "echo", "arguments": { "x": 1 } })).await;
    assert_eq!(called["result"]["echo"], json!({ "name": "echo", "arguments": { "x": 1 } }));
    let directly = call("echo", json!({ "x": 1 })).await;
    assert_eq!(directly["result"]["echo"]["arguments"], json!({ "x": 1 }));
    assert_eq!(call("comity_call_tool", json!({ "name": "nobody" })).await["error"]["code"], -32602);
    assert_eq!(call("comity_find_tools", json!({})).await["error"]["code"], -32602);
}
