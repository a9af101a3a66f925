//! `/rpc`: JSON-RPC 2.0.

use crate::{call, json_of, post, rpc, support::Cluster};
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn json_rpc_calls_any_unary_method() {
    let cluster = Cluster::start().await;
    let admin = &cluster.admin(&cluster.w1).await;
    let hello = |id: u32, name: &str| call(json!(id), "demo.v1.Greeter/SayHello", json!({"name": name}));

    let answer = rpc(admin, hello(1, "you")).await;
    let expected = json!({"message": "Hello, you!", "node": "g1", "caller": "spiffe://test/admin/admin"});
    assert_eq!(answer, json!({"jsonrpc": "2.0", "id": 1, "result": expected}));

    let silent = json!({"jsonrpc": "2.0", "method": "demo.v1.Greeter/SayHello", "params": {"name": "x"}});
    let batch =
        rpc(admin, json!([hello(1, "a"), silent, call(json!("b"), "no.Such/Method", json!({}))])).await;
    assert_eq!(batch.as_array().map(Vec::len), Some(2), "a notification has no answer: {batch}");
    assert_eq!((&batch[0]["result"]["message"], &batch[1]["id"]), (&json!("Hello, a!"), &json!("b")));
    assert_eq!(batch[1]["error"]["code"], -32601);
    let notified = post(admin, silent.to_string()).await;
    assert_eq!(notified.status(), 204);
    assert_eq!(notified.bytes().await.expect("a body").len(), 0);
    assert_eq!(post(admin, json!([silent, silent]).to_string()).await.status(), 204);
    let null = rpc(admin, call(Value::Null, "demo.v1.Greeter/SayHello", json!({"name": "you"}))).await;
    assert_eq!((&null["id"], &null["result"]["node"]), (&Value::Null, &json!("g1")), "a null id is an id");

    for (body, code) in [
        ("{", -32700),
        ("", -32700),
        ("[]", -32600),
        ("7", -32600),
        (r#"{"jsonrpc": "1.0", "id": 1, "method": "a.B/C"}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": {}, "method": "a.B/C"}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1}"#, -32600),
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "nonsense"}"#, -32601),
        // Nested generic calls would overflow the stack.
        (r#"{"jsonrpc": "2.0", "id": 1, "method": "p2p.v1.RpcService/Call"}"#, -32602),
    ] {
        let answer = json_of(post(admin, body).await).await;
        assert_eq!(answer["error"]["code"], code, "{body} → {answer}");
    }
    let answer = rpc(admin, call(json!(2), "demo.v1.Greeter/SayHello", json!({"nam": 1}))).await;
    assert_eq!(answer["error"]["code"], -32602);
    assert_eq!(answer["error"]["data"]["field"], "nam", "{answer}");
    admin.awaits_sample("p2p_generic_call_faults_total{reason=\"INVALID_ARGUMENT\"}", 1.0).await;
    let answer = rpc(admin, hello(3, "")).await;
    assert_eq!(answer["error"]["code"], -32003, "the service's own INVALID_ARGUMENT: {answer}");
    assert_eq!(answer["error"]["data"]["grpc_code"], 3);
    let answer = rpc(admin, call(json!(4), "demo.v1.Greeter/Repeat", json!({}))).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    let answer = rpc(admin, Value::Array(vec![hello(5, "x"); 51])).await;
    assert_eq!(answer["error"]["code"], -32600, "a batch is bounded: {answer}");
}
