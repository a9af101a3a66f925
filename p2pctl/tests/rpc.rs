//! `p2pctl rpc call|broadcast|describe` against a local cluster, through a worker.

mod support;

use std::{io::Write as _, process::Stdio};
use support::{Dev, text};

#[test]
fn methods_of_every_kind_are_called_and_all_nodes_at_once() {
    let dev = Dev::start();
    let run = |arguments: &[&str]| {
        let output = dev.at_worker(true, arguments);
        (output.status.code().expect("a code"), text(&output.stdout), text(&output.stderr))
    };

    // Unary.
    let echo = "p2p.v1.SystemService/Echo";
    let call =
        ["rpc", "call", echo, r#"{"message": "hi"}"#, "--node", "coordinator-1", "-H", "x-request-id: 7"];
    let (code, out, notes) = run(&call);
    assert_eq!(
        (code, out.as_str()),
        (0, "{\n  \"message\": \"hi\",\n  \"nodeId\": \"coordinator-1\"\n}\n"),
        "{notes}"
    );
    let (code, out, notes) = run(&["rpc", "call", "p2p.v1.ClusterService/Why", r#"{"nodeId": "nobody"}"#]);
    assert_eq!((code, out.as_str()), (64 + 5, ""));
    assert!(notes.contains("p2p.v1.ClusterService/Why on worker-1 answered NOT_FOUND: "), "{notes}");
    for (arguments, code, why) in [
        (["rpc", "call", echo, r#"{"massage": 1}"#].as_slice(), 2, "field massage"),
        (&["rpc", "call", echo, "{} {}"], 2, "more than one JSON value"),
        (&["rpc", "call", "p2p.v1.SystemService/Ecco"], 3, "has no method Ecco"),
        (&["rpc", "call", "no.Such/Method"], 3, "no node of this cluster provides no.Such"),
        (&["rpc", "call", echo, "--node", "nobody"], 3, "no node nobody is alive"),
    ] {
        let (found, _, notes) = run(arguments);
        assert_eq!(found, code, "{arguments:?}: {notes}");
        assert!(notes.contains(why), "{notes}");
    }

    // Streams: each answer is a line of JSON.
    let (code, out, notes) = run(&["rpc", "call", "p2p.v1.ClusterService/Events", "-o", "json"]);
    assert_eq!(code, 0, "{notes}");
    assert!(out.lines().count() >= 1, "{out}");
    assert!(out.lines().all(|line| line.starts_with("{\"evidence\":{") && line.ends_with('}')), "{out}");
    let reflection =
        ["rpc", "call", "grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "-", "-o", "json"];
    let with_input = |input: &str| {
        let mut command = dev.worker_command(true, &reflection);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("started");
        child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("ran");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, notes) =
        with_input("{\"listServices\": \"\"}\n{\"fileContainingSymbol\": \"p2p.v1.SystemService\"}");
    assert_eq!((code, out.lines().count()), (Some(0), 2), "{notes}");
    assert!(out.contains("\"p2p.v1.RpcService\"") && out.contains("fileDescriptorResponse"), "{out}");
    let (code, _, notes) = with_input("{\"listServices\": \"\"}\n{\"nonsense\": 1}");
    assert_eq!(code, Some(2), "{notes}");
    assert!(notes.contains("field nonsense"), "{notes}");

    // Every node.
    let (code, out, notes) = run(&["rpc", "broadcast", "p2p.v1.SystemService/GetInfo", "-o", "json"]);
    assert_eq!((code, out.lines().count()), (0, 2), "{notes}");
    for node in ["coordinator-1", "worker-1"] {
        let line = out.lines().find(|line| line.contains(&format!("\"node_id\":\"{node}\""))).expect(node);
        assert!(line.starts_with(r#"{"schema":"p2pctl/v1","kind":"BroadcastResult","#), "{line}");
        assert!(line.contains("\"ok\":true") && line.contains(&format!("\"nodeId\":\"{node}\"")), "{line}");
    }
    let (code, out, _) = run(&["rpc", "broadcast", echo, r#"{"message": "hi"}"#, "--role", "worker"]);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((code, lines.len()), (0, 2), "{out}");
    assert!(lines[0].starts_with("NODE ") && lines[1].starts_with("worker-1 "), "{out}");
    assert!(lines[1].ends_with(r#"{"message":"hi","nodeId":"worker-1"}"#), "{out}");
    // An act of admins that only the node that sees the certificate lets in.
    let (code, out, notes) = run(&["rpc", "broadcast", "p2p.v1.AuthService/ListRevocations"]);
    assert_eq!(code, 7, "{notes}");
    assert!(
        out.contains("permission_denied") && notes.contains("1 of 2 nodes failed: coordinator-1"),
        "{notes}"
    );
    let (code, _, notes) = run(&["rpc", "broadcast", "p2p.v1.ClusterService/Why"]);
    assert_eq!(code, 1, "{notes}");
    assert!(notes.contains("none of 2 nodes answered"), "{notes}");
    let (code, _, notes) = run(&["rpc", "broadcast", echo, "--label", "disk=ssd"]);
    assert_eq!(code, 3, "{notes}");
    assert!(notes.contains("no alive node with label disk=ssd provides"), "{notes}");

    let (code, out, notes) = run(&["rpc", "describe", "p2p.v1.RpcService/Broadcast"]);
    assert_eq!(code, 0, "{notes}");
    assert!(out.contains("rpc Broadcast(BroadcastRequest) returns (stream BroadcastResponse);"), "{out}");
    assert!(out.contains("message BroadcastResponse {"), "{out}");
}
