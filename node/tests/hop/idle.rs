//! Streams that nothing passes.

use crate::support::{Binary, Certificates, PATIENCE, TestNode, greeter::HelloRequest};
use tokio_stream::StreamExt as _;
use tonic::Code;

#[tokio::test]
async fn a_stream_that_nothing_passes_ends_at_its_entry_node() {
    let certificates = Certificates::new(&["c1:coordinator", "p1:worker"]);
    let entry = certificates.config("c1").set("rpc_stream_idle_timeout", "500ms");
    let c1 = TestNode::start(Binary::Node, entry).await;
    let provider = certificates.config("p1").seeds(&[&c1.address.to_string()]);
    let _p1 = TestNode::start(Binary::Greeter, provider).await;
    let client = certificates.client(&c1, "admin").await;
    client.awaits_provider("demo.v1.Greeter/Chat", "p1").await;

    let question = tokio_stream::iter([HelloRequest { name: "you".to_owned() }]);
    let questions = question.chain(tokio_stream::pending());
    let mut chat = client.greeter().chat(questions).await.expect("begun").into_inner();
    let reply = chat.next().await.expect("more").expect("a reply");
    assert!(reply.message.contains("you"), "{reply:?}");
    let end = tokio::time::timeout(PATIENCE, chat.next()).await.expect("it ends").expect("by a status");
    let status = end.expect_err("an end");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!(status.message().contains("rpc_stream_idle_timeout"), "{status}");

    // Who sends nothing, and is sent nothing before its end, no less.
    let gathered = tokio::time::timeout(PATIENCE, client.greeter().gather(tokio_stream::pending())).await;
    let status = gathered.expect("it ends").expect_err("an end");
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // A call of one message each way is no stream.
    client.hello("you").await.expect("served");
}
