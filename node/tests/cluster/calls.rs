//! Calls through another node than the provider.

use crate::support::{Cluster, error_details, greeter::HelloRequest};
use p2p_proto::v1::{GetInfoRequest, call_response::Result as CallResult};
use tonic::{Code, Request};

const ADMIN: &str = "spiffe://test/admin/admin";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_arrives_as_sent_and_its_answer_as_given() {
    let cluster = Cluster::start().await;
    println!("join: three processes see and route to each other within {:?}", cluster.joined);
    for entry in cluster.nodes() {
        let client = cluster.admin(entry).await;
        let mut request = Request::new(HelloRequest { name: "world".to_owned() });
        request.metadata_mut().insert("x-demo", "kept".parse().expect("a value"));
        let answer = client.greeter().say_hello(request).await.expect("greeted");
        assert_eq!(answer.metadata().get("x-demo").expect("the service's own header"), "kept");
        let reply = answer.into_inner();
        assert_eq!(
            (reply.message.as_str(), reply.node.as_str(), reply.caller.as_str()),
            ("Hello, world!", "g1", ADMIN)
        );

        let status = client.hello("").await.expect_err("refused by the service");
        assert_eq!(
            (status.code(), status.message()),
            (Code::InvalidArgument, "name is empty; whom shall I greet?")
        );
        let violations = error_details(&status).bad_request().expect("the details").field_violations.clone();
        assert_eq!(violations[0].field, "name");
        assert_eq!(status.metadata().get("x-demo-trailer").expect("the service's own trailer"), "sent");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_node_can_say_for_whom_it_calls() {
    let cluster = Cluster::start().await;
    for entry in [&cluster.w1, &cluster.g1] {
        let client = cluster.admin(entry).await;
        let mut forged = Request::new(HelloRequest { name: "world".to_owned() });
        for (name, value) in [
            ("p2p-principal", "spiffe://test/coordinator/c1"),
            ("p2p-entry-node", "c1"),
            // Without this one a node would only forward; with it, it must not believe a client either.
            ("p2p-hop", "1"),
        ] {
            forged.metadata_mut().insert(name, value.parse().expect("a value"));
        }
        let reply = client.greeter().say_hello(forged).await.expect("greeted").into_inner();
        assert_eq!(reply.caller, ADMIN, "through {}", entry.config.name);
    }

    let stranger = cluster.certificates.stranger(&cluster.w1).await;
    let status = stranger.hello("world").await.expect_err("refused");
    assert_eq!(status.code(), Code::Unauthenticated);
    assert!(status.message().contains("needs a client certificate"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_names_the_nearest_one_to_members_only() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    let status = admin.call("demo.v1.Greeter/SayHelo", "", "{}").await.expect_err("unknown");
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("did you mean demo.v1.Greeter/SayHello?"), "{status}");
    let info = error_details(&status).error_info().expect("ErrorInfo").clone();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("UNKNOWN_METHOD", "p2p.v1"));

    let stranger = cluster.certificates.stranger(&cluster.c1).await;
    let mut grpc = tonic::client::Grpc::new(stranger.channel.clone());
    grpc.ready().await.expect("connected");
    let codec = tonic_prost::ProstCodec::<HelloRequest, HelloRequest>::default();
    let path = http::uri::PathAndQuery::from_static("/demo.v1.Greeter/SayHelo");
    let status = grpc.unary(Request::new(HelloRequest::default()), path, codec).await.expect_err("unknown");
    assert_eq!(
        (status.code(), status.message()),
        (Code::Unimplemented, "no node of this cluster provides this method")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generic_call_reaches_the_node_that_it_names() {
    let cluster = Cluster::start().await;
    let admin = cluster.admin(&cluster.c1).await;
    for target in ["c1", "w1", "g1"] {
        let answer = admin.call("p2p.v1.SystemService/GetInfo", target, "{}").await.expect("answered");
        let Some(CallResult::Json(json)) = &answer.result else { panic!("no JSON: {answer:?}") };
        let info: serde_json::Value = serde_json::from_str(json).expect("JSON");
        assert_eq!((answer.node.as_str(), info["nodeId"].as_str()), (target, Some(target)));
    }

    let status = admin.call("p2p.v1.SystemService/GetInfo", "w9", "{}").await.expect_err("no such node");
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("no node w9 is alive"), "{status}");
    let status = admin.call("demo.v1.Greeter/SayHello", "w1", "{}").await.expect_err("not there");
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, "node w1 does not provide demo.v1.Greeter/SayHello")
    );

    // The method's own error is part of the answer, not of the generic call.
    let answer = admin.call("demo.v1.Greeter/SayHello", "", "{}").await.expect("answered");
    let Some(CallResult::Error(error)) = answer.result else { panic!("no error") };
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::InvalidArgument.into(), "name is empty; whom shall I greet?")
    );

    let named = admin.system().get_info(GetInfoRequest {}).await.expect("answered").into_inner();
    assert_eq!(named.node_id, "c1", "an unnamed node means the one that was asked");
}
