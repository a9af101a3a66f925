//! The client library: certificate or token, generated clients, several entry nodes.

mod support;

use p2p_client::{CallError, Channel, ConnectError, ConnectOptions, Connection, ErrorKind, Identity, Token};
use p2p_proto::v1::{
    EchoRequest, GetInfoRequest, IssueTokenRequest, system_service_client::SystemServiceClient,
};
use rustix::process::Signal;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use support::{
    Cluster, TestNode,
    greeter::{HelloRequest, RepeatRequest, greeter_client::GreeterClient},
};
use tonic::{Code, Request};

fn options(cluster: &Cluster, entries: &[&TestNode]) -> ConnectOptions {
    let endpoint = |node: &TestNode| node.address.to_string().parse().expect("an address");
    let mut options = ConnectOptions::new(endpoint(entries[0]));
    options.others = entries[1..].iter().map(|node| endpoint(node)).collect();
    options.ca_pem = Some(cluster.certificates.read("ca_cert.pem").into_bytes());
    options
}

fn as_admin(cluster: &Cluster, entries: &[&TestNode]) -> ConnectOptions {
    let (cert, key) = cluster.certificates.pair("admin");
    let identity = Identity { cert_pem: cert.into_bytes(), key_pem: key.into_bytes() };
    ConnectOptions { identity: Some(identity), ..options(cluster, entries) }
}

async fn entry_of(system: &mut SystemServiceClient<Channel>) -> Result<String, tonic::Status> {
    let mut request = Request::new(GetInfoRequest {});
    request.set_timeout(Duration::from_secs(5));
    system.get_info(request).await.map(|info| info.into_inner().node_id)
}

#[tokio::test(flavor = "multi_thread")]
async fn generated_clients_call_with_a_certificate_or_a_token() {
    let cluster = Cluster::start().await;
    let connection = Connection::connect(&as_admin(&cluster, &[&cluster.c1])).await.expect("connected");
    let mut greeter = GreeterClient::new(connection.channel());
    let hello = HelloRequest { name: "you".to_owned() };
    let reply = greeter.say_hello(hello.clone()).await.expect("greeted").into_inner();
    assert_eq!((reply.node.as_str(), reply.caller.as_str()), ("g1", "spiffe://test/admin/admin"));
    let repeat = RepeatRequest { name: "you".to_owned(), count: 3, pause_ms: 0 };
    let mut replies = greeter.repeat(repeat).await.expect("open").into_inner();
    let mut count = 0;
    while replies.message().await.expect("a reply").is_some() {
        count += 1;
    }
    assert_eq!(count, 3);
    let status = greeter.say_hello(HelloRequest::default()).await.expect_err("refused by the service");
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "name is empty; whom shall I greet?")
    );

    let request = IssueTokenRequest {
        subject: "ci".to_owned(),
        scope: vec!["demo.v1.Greeter/SayHello".to_owned()],
        ..IssueTokenRequest::default()
    };
    let issued = connection.issue_token(request).await.expect("issued");
    let token: Token = issued.token.parse().expect("a token");
    let bearer = ConnectOptions { token: Some(token), ..options(&cluster, &[&cluster.w1]) };
    let mut greeter = GreeterClient::new(Channel::connect(&bearer).await.expect("connected"));
    support::eventually("the token to be known", async || {
        let reply = greeter.say_hello(hello.clone()).await.map_err(|status| status.to_string())?.into_inner();
        if reply.caller == "ci" { Ok(()) } else { Err(reply.caller) }
    })
    .await;
    let refused = greeter.repeat(RepeatRequest::default()).await.expect_err("outside the scope");
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_stops_costs_no_call() {
    let mut cluster = Cluster::start().await;
    let channel =
        Channel::connect(&as_admin(&cluster, &[&cluster.w1, &cluster.c1])).await.expect("connected");
    let stop = Arc::new(AtomicBool::new(false));
    let callers = (0..8).map(|_| {
        let (mut system, stop) = (SystemServiceClient::new(channel.clone()), stop.clone());
        tokio::spawn(async move {
            let (mut calls, mut entries) = (0, Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let entry = entry_of(&mut system).await.expect("no call fails");
                if entries.last() != Some(&entry) {
                    entries.push(entry);
                }
                calls += 1;
            }
            (calls, entries)
        })
    });
    let callers: Vec<_> = callers.collect();
    let mut system = SystemServiceClient::new(channel.clone());
    assert_eq!(entry_of(&mut system).await.expect("answered"), "w1");
    cluster.w1.signal(Signal::TERM);
    assert!(cluster.w1.ends().await.success());
    assert_eq!(entry_of(&mut system).await.expect("answered"), "c1");
    stop.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        let (made, entries) = caller.await.expect("no call failed");
        assert_eq!(entries, ["w1", "c1"]);
        calls += made;
    }
    println!("client: {calls} calls while the entry stopped, none failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_dies_costs_at_most_the_call_that_it_had() {
    let mut cluster = Cluster::start().await;
    let channel =
        Channel::connect(&as_admin(&cluster, &[&cluster.w1, &cluster.c1])).await.expect("connected");
    let mut system = SystemServiceClient::new(channel.clone());
    assert_eq!(entry_of(&mut system).await.expect("answered"), "w1");
    // A call under way: it may have been processed, so it is not made again.
    let mut greeter = GreeterClient::new(channel.clone());
    let repeat = RepeatRequest { name: "you".to_owned(), count: 100, pause_ms: 50 };
    let mut replies = greeter.repeat(repeat).await.expect("open").into_inner();
    assert!(replies.message().await.expect("a reply").is_some());
    cluster.w1.signal(Signal::KILL);
    cluster.w1.ends().await;
    let broken = loop {
        match replies.message().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended as if it were whole"),
            Err(status) => break status,
        }
    };
    assert!(
        matches!(broken.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal),
        "{broken}"
    );
    // The stream broke, so the connection is known to be gone.
    assert_eq!(entry_of(&mut system).await.expect("the next goes elsewhere"), "c1");
    assert_eq!(channel.entry().await.to_string(), cluster.c1.address.to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_reached_is_named() {
    let cluster = Cluster::start().await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("binds").local_addr().expect("bound");
    let free = free.to_string();
    let mut nobody = as_admin(&cluster, &[&cluster.w1]);
    nobody.endpoint = free.parse().expect("an address");
    let error = Channel::connect(&nobody).await.expect_err("nobody listens");
    assert_eq!(error.to_string(), format!("cannot reach {free}: connection refused"));
    // A stub's status says the same.
    let channel = Channel::new(Arc::new(nobody.clone())).expect("lazy");
    let status = entry_of(&mut SystemServiceClient::new(channel)).await.expect_err("nobody listens");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, error.to_string().as_str()));
    let error = CallError::new(status, &nobody.endpoint, nobody.timeout);
    assert!(matches!(error, CallError::Connection(ConnectError::Unreachable { .. })), "{error}");
    // One of several is enough.
    nobody.others = vec![cluster.w1.address.to_string().parse().expect("an address")];
    let connection = Connection::connect(&nobody).await.expect("the second answers");
    assert_eq!(connection.list_nodes().await.expect("listed").len(), 3);

    // A node that hangs ends a call by its deadline.
    cluster.w1.signal(Signal::STOP);
    let mut system = SystemServiceClient::new(connection.channel());
    let mut request = Request::new(EchoRequest { message: "x".to_owned() });
    request.set_timeout(Duration::from_millis(300));
    let status = system.echo(request).await.expect_err("it hangs");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let error = CallError::new(status, &nobody.endpoint, nobody.timeout);
    assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
    cluster.w1.signal(Signal::CONT);
}
