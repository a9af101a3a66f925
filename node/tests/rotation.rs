//! Rotating the CA, with real processes over real TLS.

mod support;

use p2p_node::identity::{Ca, UnixTime, Validity};
use p2p_proto::v1::{
    CreateJoinTokenRequest, IssueTokenRequest, MemberState, RotateCaAction, RotateCaRequest, RotateCaStatus,
    RotationStep, VerifyTokenRequest, auth_service_client::AuthServiceClient,
    enrollment_service_client::EnrollmentServiceClient,
};
use std::fs;
use support::{Binary, Certificates, Client, NodeConfig, TestNode, eventually};
use tonic::{Code, Status};

async fn rotate(admin: &Client, action: RotateCaAction, force: &[&str]) -> Result<RotateCaStatus, Status> {
    let force_nodes = force.iter().map(ToString::to_string).collect();
    let request = RotateCaRequest { action: action.into(), force_nodes };
    let answer = EnrollmentServiceClient::new(admin.channel.clone()).rotate_ca(request).await;
    answer.map(tonic::Response::into_inner)
}

fn roots(certificates: &Certificates, name: &str) -> usize {
    let text = fs::read_to_string(certificates.path(&format!("{name}_ca.pem"))).expect("roots");
    text.matches("BEGIN CERTIFICATE").count()
}

/// Starts a node that keeps the trusted certificates in a file of its own.
async fn start(certificates: &Certificates, name: &str, seeds: &[&str]) -> TestNode {
    let own = certificates.path(&format!("{name}_ca.pem"));
    if !own.exists() {
        fs::copy(certificates.path("ca_cert.pem"), &own).expect("copied");
    }
    let config = certificates.config(name).seeds(seeds).set("ssl_ca_cert_file", &own.display().to_string());
    TestNode::start(Binary::Node, config).await
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_comes_to_trust_the_new_root_also_one_that_was_away() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker", "w2:worker"]);
    let c1 = start(&certificates, "c1", &[]).await;
    let seed = c1.address.to_string();
    let w1 = start(&certificates, "w1", &[&seed]).await;
    let mut w2 = start(&certificates, "w2", &[&seed]).await;
    let admin = certificates.client(&c1, "admin").await;
    for node in ["w1", "w2"] {
        admin.awaits_state(node, MemberState::Alive).await;
    }
    let issue =
        IssueTokenRequest { subject: "ci".to_owned(), scope: vec!["demo.*".to_owned()], ttl_seconds: 3600 };
    let issued = AuthServiceClient::new(admin.channel.clone()).issue_token(issue).await.expect("issued");
    let token = issued.into_inner().token;
    w2.signal(rustix::process::Signal::KILL);
    w2.ends().await;
    admin.awaits_state("w2", MemberState::Down).await;

    let idle = rotate(&admin, RotateCaAction::GoOn, &[]).await.expect("an answer");
    assert_eq!((idle.step(), idle.serial), (RotationStep::Idle, 0));
    rotate(&admin, RotateCaAction::Begin, &[]).await.expect("begun");
    eventually("all but w2 to trust both roots", async || {
        let status = rotate(&admin, RotateCaAction::GoOn, &[]).await.map_err(|status| status.to_string())?;
        assert_eq!((status.step(), status.serial), (RotationStep::Spreading, 1));
        if status.waiting_for == ["w2"] { Ok(()) } else { Err(format!("{:?}", status.waiting_for)) }
    })
    .await;
    assert_eq!(
        (roots(&certificates, "c1"), roots(&certificates, "w1"), roots(&certificates, "w2")),
        (2, 2, 1)
    );

    // Back, it learns of the bundle; the new root issues, every node gets a certificate below it, and the old one is
    // dropped, all by themselves.
    let w2 = start(&certificates, "w2", &[&seed]).await;
    eventually("the rotation to be done", async || {
        let status = rotate(&admin, RotateCaAction::GoOn, &[]).await.map_err(|status| status.to_string())?;
        if status.step() == RotationStep::Done { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    eventually("all to trust the new root alone", async || {
        let trusted = ["c1", "w1", "w2"].map(|name| roots(&certificates, name));
        if trusted == [1, 1, 1] { Ok(()) } else { Err(format!("{trusted:?}")) }
    })
    .await;
    let new_roots = certificates.read("c1_ca.pem");
    assert_ne!(new_roots, certificates.read("ca_cert.pem"));
    // Nobody was lost on the way. What an admin needs is of the old root, and made anew where the key of the CA is.
    let ca =
        Ca::load(&certificates.path("c1_ca.pem"), &certificates.path("ca_key.pem")).expect("the new root");
    let validity = Validity::days(UnixTime::now(), 1).expect("a day");
    certificates.issue_by(&ca, "root", "spiffe://test/admin/root", validity);
    let again = Client::connect(c1.address, &new_roots, Some(certificates.pair("root"))).await;
    for node in ["w1", "w2"] {
        again.awaits_state(node, MemberState::Alive).await;
    }
    // Nor a token that was out: its key has a certificate below the new root.
    for node in [&c1, &w1, &w2] {
        let client = Client::connect(node.address, &new_roots, Some(certificates.pair("root"))).await;
        eventually("the token to be accepted", async || {
            let request = VerifyTokenRequest { token: token.clone() };
            let answer = AuthServiceClient::new(client.channel.clone()).verify_token(request).await;
            let verdict = answer.map_err(|status| status.to_string())?.into_inner();
            if verdict.accepted { Ok(()) } else { Err(verdict.message) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_admins_rotate_and_only_at_a_coordinator() {
    let certificates = Certificates::new(&["c1:coordinator", "w1:worker"]);
    let c1 = start(&certificates, "c1", &[]).await;
    let w1 = start(&certificates, "w1", &[&c1.address.to_string()]).await;
    let node = certificates.client(&c1, "w1").await;
    let refused = rotate(&node, RotateCaAction::Begin, &[]).await.expect_err("refused");
    assert_eq!(refused.code(), Code::PermissionDenied);
    let admin = certificates.client(&w1, "admin").await;
    admin.awaits_state("c1", MemberState::Alive).await;
    let refused = rotate(&admin, RotateCaAction::Begin, &[]).await.expect_err("refused");
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(refused.message().contains("w1 is no coordinator; ask a coordinator: c1 at"), "{refused}");
    let admin = certificates.client(&c1, "admin").await;
    let refused = rotate(&admin, RotateCaAction::Begin, &["../x"]).await.expect_err("refused");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().starts_with("force_nodes: "), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_coordinators_come_through_a_whole_rotation_by_themselves() {
    let certificates = Certificates::new(&["c1:coordinator"]);
    let c1 = start(&certificates, "c1", &[]).await;
    let admin = certificates.client(&c1, "admin").await;
    let request = CreateJoinTokenRequest { role: "coordinator".to_owned(), ..Default::default() };
    let mut enrolment = EnrollmentServiceClient::new(admin.channel.clone());
    let token = enrolment.create_join_token(request).await.expect("a token").into_inner().token;
    let file = certificates.path("token");
    fs::write(&file, token).expect("written");
    let c2 = TestNode::start(Binary::Node, NodeConfig::joining("c2", &file)).await;
    admin.awaits_state("c2", MemberState::Alive).await;
    let before = fs::read_to_string(c2.file("ca_issuer_cert.pem")).expect("a CA");

    let mut action = RotateCaAction::Begin;
    eventually("the rotation to be done", async || {
        let status = rotate(&admin, action, &[]).await.map_err(|status| status.to_string())?;
        action = RotateCaAction::GoOn;
        if status.step() == RotationStep::Done { Ok(()) } else { Err(format!("{status:?}\n{}", c2.log())) }
    })
    .await;
    let after = fs::read_to_string(c2.file("ca_issuer_cert.pem")).expect("a CA");
    assert_ne!(before, after, "the CA of c2 is below the new root");
    eventually("c2 to drop the old root", async || {
        let roots = fs::read_to_string(c2.file("ca_cert.pem")).expect("roots");
        let same = roots == certificates.read("c1_ca.pem");
        if same { Ok(()) } else { Err(c2.log()) }
    })
    .await;

    // The old admin is of the old root; a worker that c2's CA vouches for is believed by c1.
    let ca = Ca::load(&c2.file("ca_cert.pem"), &c2.file("ca_key.pem")).expect("a CA");
    let validity = Validity::days(UnixTime::now(), 1).expect("a day");
    certificates.issue_by(&ca, "root", "spiffe://test/worker/w9", validity);
    let identity = Some(certificates.pair("root"));
    let again = Client::connect(c1.address, &certificates.read("c1_ca.pem"), identity).await;
    again.awaits_state("c2", MemberState::Alive).await;
    let old = Client::connect_lazily(c1.address, &certificates.read("c1_ca.pem"), certificates.pair("admin"));
    assert!(old.members().await.is_err(), "the old root is dropped");
}
