//! `p2pctl services` against a local cluster. What calls of upstreams do is tested with the node.

mod support;

use prost_reflect::{
    prost::Message as _,
    prost_types::{
        DescriptorProto, FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto,
        ServiceDescriptorProto,
    },
};
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    net::TcpListener,
    process::{Output, Stdio},
};
use support::{Dev, text};

/// The descriptors of `shop.Stock`, with one method.
fn descriptors() -> Vec<u8> {
    let message = DescriptorProto { name: Some("Item".to_owned()), ..DescriptorProto::default() };
    let method = MethodDescriptorProto {
        name: Some("Get".to_owned()),
        input_type: Some(".shop.Item".to_owned()),
        output_type: Some(".shop.Item".to_owned()),
        ..MethodDescriptorProto::default()
    };
    let service = ServiceDescriptorProto {
        name: Some("Stock".to_owned()),
        method: vec![method],
        ..ServiceDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: Some("stock.proto".to_owned()),
        package: Some("shop".to_owned()),
        syntax: Some("proto3".to_owned()),
        message_type: vec![message],
        service: vec![service],
        ..FileDescriptorProto::default()
    };
    FileDescriptorSet { file: vec![file] }.encode_to_vec()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_service_is_registered_listed_drained_disabled_enabled_and_deregistered() {
    let dev = Dev::start();
    let services = |arguments: &[&str]| dev.at_worker(true, &[&["services"], arguments].concat());
    let listed = || -> Value {
        let json = succeeds(&services(&["list", "-o", "json"]));
        let list: Value = serde_json::from_str(&json).expect("JSON");
        assert_eq!((&list["schema"], &list["kind"]), (&"p2pctl/v1".into(), &"ServiceList".into()));
        list["items"].as_array().expect("a list").first().cloned().unwrap_or_default()
    };
    assert_eq!(listed(), Value::Null);
    let none = services(&["list"]);
    assert!(
        text(&none.stderr).starts_with("No services yet: `p2pctl services register "),
        "{}",
        text(&none.stderr)
    );

    // It accepts connections, which is all that its health check asks.
    let process = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", process.local_addr().expect("an address"));
    let mut watch = dev
        .worker_command(true, &["cluster", "nodes", "--watch", "-o", "json"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("started");
    let mut seen = BufReader::new(watch.stdout.take().expect("piped")).lines().map(|line| {
        let list: Value = serde_json::from_str(&line.expect("a line")).expect("JSON");
        list["items"]
            .as_array()
            .is_some_and(|nodes| nodes.iter().any(|node| node["services"][0] == "shop.Stock"))
    });
    assert_eq!(seen.next(), Some(false), "before it is registered");
    let file = dev.directory.path().join("stock.bin");
    std::fs::write(&file, descriptors()).expect("written");
    let file = file.display().to_string();
    let register = ["register", "shop.Stock", "--upstream", &url, "--descriptors", &file, "--health", "tcp"];
    let registered = services(&register);
    let table = succeeds(&registered);
    assert!(table.contains("shop.Stock  serving  worker-1") && table.contains(&url), "{table}");
    let hint = text(&registered.stderr);
    assert!(hint.contains("p2pctl rpc call shop.Stock/Get"), "{hint}");

    assert!(seen.by_ref().any(|registered| registered), "the list is printed again when it has changed");
    watch.kill().and_then(|()| watch.wait()).expect("ended");

    let service = listed();
    assert_eq!((&service["name"], &service["state"]), (&"shop.Stock".into(), &"serving".into()));
    assert_eq!(service["providers"][0]["node_id"], "worker-1");
    assert_eq!(
        (&service["upstream"]["url"], &service["upstream"]["health"]),
        (&url.as_str().into(), &"tcp".into())
    );
    assert!(service["upstream"]["lease_expires_at"].is_string(), "{service}");
    let wide = succeeds(&services(&["list", "-o", "wide"]));
    assert!(wide.contains("IN-FLIGHT") && wide.contains("tcp") && wide.contains("Get"), "{wide}");

    let drained = succeeds(&services(&["drain", "shop.Stock", "--wait", "10s"]));
    assert_eq!(drained, "shop.Stock is draining here, 0 calls in flight\n");
    assert_eq!(listed()["state"], "draining");
    assert!(succeeds(&services(&["disable", "shop.Stock"])).starts_with("shop.Stock is disabled here"));
    assert!(succeeds(&services(&["enable", "shop.Stock"])).starts_with("shop.Stock is serving here"));
    assert_eq!(listed()["state"], "serving");
    let gone = succeeds(&services(&["deregister", "shop.Stock"]));
    assert_eq!(gone, "deregistered shop.Stock; 0 calls still in flight\n");
    assert_eq!(listed(), Value::Null);

    for (arguments, exit, why) in [
        (vec!["drain", "shop.Stock"], 3, "this node has no upstream for shop.Stock"),
        (vec!["register", "shop.Stock", "--upstream", "http://192.0.2.1:1"], 4, "register_remote_upstreams"),
        (vec!["register", "shop.Stock", "--upstream", "127.0.0.1:1"], 2, "http://HOST:PORT"),
        (vec!["register", "shop", "stock"], 2, "upstream"),
        (vec!["register", "shop.Stock", "--upstream", "http://127.0.0.1:1"], 1, "refuses connections"),
        (
            vec!["register", "shop.Stock", "--upstream", &url, "--descriptors", "no.bin"],
            2,
            "cannot read no.bin",
        ),
    ] {
        let output = services(&arguments);
        let errors = text(&output.stderr);
        assert!(output.status.code() == Some(exit) && errors.contains(why), "{:?}: {errors}", output.status);
    }
    let stranger = dev.at_worker(false, &["services", "deregister", "shop.Stock"]);
    assert_eq!(stranger.status.code(), Some(4), "{}", text(&stranger.stderr));
}
