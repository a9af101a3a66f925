//! Coordinators that join, and those that cannot take them in.

use super::*;
use crate::identity::{Usage, ca_key_of, coordinator_of};

fn for_a_coordinator() -> NewToken {
    NewToken { role: Role::Coordinator, ..plain() }
}

#[tokio::test]
async fn a_coordinator_gets_a_ca_of_its_own_and_the_same_again() {
    let rig = rig().await;
    let token = rig.token(for_a_coordinator()).await;
    let (node_key, ca_key) = (key(), key());
    let request = Request { ca_csr: csr(&ca_key), ..rig.request(&token, &node_key) };
    let enrolled = rig.enrolment.enrol(request.clone()).await.unwrap();
    let certificate = PeerCertificate::parse(&enrolled.chain[0]).unwrap();
    assert_eq!(certificate.spiffe.to_string(), "spiffe://shop/coordinator/new");
    assert_eq!(coordinator_of(&enrolled.ca_chain[0]), Some("new".parse().unwrap()));
    let own: String = enrolled.ca_chain.iter().map(|der| pem::to_text(der)).collect();
    let own = Ca::from_issuer_pem(&own, &ca_key.serialize_pem()).unwrap();
    let leaf = LeafRequest {
        spiffe: "spiffe://shop/worker/w-2".parse().unwrap(),
        sans: vec![],
        grant: None,
        vouchers: Vec::new(),
        validity: Validity::days(UnixTime::now(), 1).unwrap(),
    };
    let leaf = pem::certificates(own.issue(&leaf).unwrap().cert_pem.as_bytes()).unwrap();
    let trust = rig.enrolment.identity.current().trust();
    assert!(trust.verify(&leaf, Usage::Server, UnixTime::now()).is_ok());
    assert_eq!(rig.enrolment.enrol(request.clone()).await.unwrap(), enrolled);
    let other_ca = Request { ca_csr: csr(&key()), ..request.clone() };
    assert_eq!(rig.refused(other_ca).await, "used");

    // Also after a restart.
    let Rig { enrolment, view, directory, listener: _listener, .. } = rig;
    drop(enrolment);
    let again = load(directory.path(), view.subscribe(), &Metrics::default(), "c");
    assert_eq!(again.enrol(request).await.unwrap(), enrolled);
}

#[tokio::test]
async fn a_ca_is_for_coordinators_with_two_keys_only() {
    let rig = rig().await;
    let token = rig.token(for_a_coordinator()).await;
    let node_key = key();
    for (ca_csr, says) in [
        (vec![], "coordinator_mode: false"),
        (vec![1, 2, 3], "is not DER-encoded PKCS #10"),
        (csr(&node_key), "must be another than the node's"),
    ] {
        let refusal = rig.enrolment.enrol(Request { ca_csr, ..rig.request(&token, &node_key) }).await;
        let refusal = refusal.unwrap_err();
        assert_eq!((refusal.word(), refusal.to_string().contains(says)), ("malformed", true), "{refusal}");
    }
    // A worker that asks for one gets none.
    let token = rig.token(plain()).await;
    let greedy = Request { ca_csr: csr(&key()), ..rig.request(&token, &node_key) };
    assert_eq!(rig.enrolment.enrol(greedy).await.unwrap().ca_chain, Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn a_coordinators_id_is_handed_to_a_coordinator_only() {
    let rig = rig().await;
    let seen = seen(Role::Coordinator, MemberState::Down, i64::MAX);
    rig.view.send_replace(Arc::new(View { members: [("new".parse().unwrap(), seen)].into() }));
    let ask = async |new: NewToken| {
        let request = Request { ca_csr: csr(&key()), ..rig.request(&rig.token(new).await, &key()) };
        rig.enrolment.enrol(request).await.map_err(|refusal| refusal.word())
    };
    assert_eq!(ask(NewToken { replace: true, ..plain() }).await, Err("node_id_taken"));
    assert_eq!(ask(for_a_coordinator()).await, Err("node_id_taken"));
    assert!(ask(NewToken { replace: true, ..for_a_coordinator() }).await.is_ok());
}

#[tokio::test]
async fn only_the_holder_of_a_root_takes_in_coordinators_and_the_others_enrol_workers() {
    let rig = rig().await;
    let token = rig.token(for_a_coordinator()).await;
    let ca_key = key();
    let request = Request { ca_csr: csr(&ca_key), ..rig.request(&token, &key()) };
    let enrolled = rig.enrolment.enrol(request).await.unwrap();
    // From now on `c` is one that joined.
    let at = |name: &str| rig.directory.path().join("certs").join(name);
    std::fs::write(at("ca_issuer_cert.pem"), pem::to_text(&enrolled.ca_chain[0])).unwrap();
    std::fs::write(at("ca_key.pem"), ca_key.serialize_pem()).unwrap();
    let fault = rig.enrolment.create(for_a_coordinator()).await.unwrap_err();
    assert_eq!(fault.reason, Reason::Precondition);
    assert!(fault.message.contains("c cannot take in coordinators: this is the own CA of"), "{fault}");

    let token = rig.token(plain()).await;
    let trust = rig.enrolment.identity.current().trust();
    assert_eq!(token.pins, trust.pins(), "the root's");
    let request = Request { node_id: "w-9".into(), ..rig.request(&token, &key()) };
    let enrolled = rig.enrolment.enrol(request).await.unwrap();
    assert_eq!(enrolled.chain.len(), 2);
    assert!(trust.verify(&enrolled.chain, Usage::Server, UnixTime::now()).is_ok());
    assert_eq!(enrolled.roots, trust.roots().iter().map(|root| root.to_vec()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_coordinators_ca_is_issued_anew_for_its_own_key_and_name_only() {
    let rig = rig().await;
    let token = rig.token(for_a_coordinator()).await;
    let ca_key = key();
    let request = Request { ca_csr: csr(&ca_key), ..rig.request(&token, &key()) };
    let enrolled = rig.enrolment.enrol(request).await.unwrap();
    let own: String = enrolled.ca_chain.iter().map(|der| pem::to_text(der)).collect();
    let own = Ca::from_issuer_pem(&own, &ca_key.serialize_pem()).unwrap();
    let files = rig.enrolment.identity.files();
    let root = Ca::load(&files.ca_cert, &files.ca_key).unwrap();
    let proof = |ca: &Ca, spiffe: &str| {
        let validity = Validity::days(UnixTime::now(), 1).unwrap();
        let leaf = LeafRequest {
            spiffe: spiffe.parse().unwrap(),
            sans: vec![],
            grant: None,
            vouchers: Vec::new(),
            validity,
        };
        let pem = ca.issue(&leaf).unwrap().cert_pem;
        pem::certificates(pem.as_bytes()).unwrap().iter().map(|der| der.to_vec()).collect::<Vec<_>>()
    };
    let ask =
        async |who: &str, proof: Vec<Vec<u8>>| rig.enrolment.reissue_ca(who.parse().unwrap(), proof).await;
    let me = "spiffe://shop/coordinator/new";
    let again = ask(me, proof(&own, me)).await.unwrap();
    assert_eq!(ca_key_of(&again[0]), ca_key_of(&enrolled.ca_chain[0]));
    assert_eq!(coordinator_of(&again[0]), Some("new".parse().unwrap()));
    let other = "spiffe://shop/coordinator/c-9";
    for (who, proof) in [
        // Its CA issues for another name, and is no other coordinator's.
        (me, proof(&own, "spiffe://shop/worker/new")),
        (other, proof(&own, me)),
        ("spiffe://shop/worker/new", proof(&own, "spiffe://shop/worker/new")),
        // A certificate of the root proves no CA.
        (me, proof(&root, me)),
        (me, vec![]),
        (me, vec![vec![1, 2, 3]]),
    ] {
        let fault = ask(who, proof).await.unwrap_err();
        assert_eq!(fault.reason, Reason::Denied, "{fault}");
        assert!(fault.message.starts_with("this proves no CA of"), "{fault}");
    }
    rig.enrolment.identity.bans().set(["new".parse().unwrap()].into());
    let fault = ask(me, proof(&own, me)).await.unwrap_err();
    assert!(fault.message.contains("new was evicted from the cluster"), "{fault}");
}
