//! Renewal and recovery at a coordinator in memory, by a clock that the test holds.

use super::*;
use crate::identity::{TrustError, recovery_message};

/// A node that joined: its key, and what it got.
struct Joined {
    key: KeyPair,
    chain: Vec<Vec<u8>>,
    certificate: PeerCertificate,
}

impl Joined {
    fn with(key: KeyPair, chain: Vec<Vec<u8>>) -> Self {
        let certificate = PeerCertificate::parse(&chain[0]).unwrap();
        Self { key, chain, certificate }
    }

    fn renewal(&self, key: &KeyPair) -> RenewRequest {
        RenewRequest {
            from: [192, 0, 2, 1].into(),
            forwarded: false,
            presented: Some(Arc::new(self.certificate.clone())),
            csr: csr(key),
            sans: vec![],
        }
    }

    fn recovery(&self, key: &KeyPair) -> RecoverRequest {
        let csr = csr(key);
        let signature = sign(&self.key, &recovery_message(&"shop".parse().unwrap(), &csr));
        let (from, chain) = ([192, 0, 2, 1].into(), self.chain.clone());
        RecoverRequest { from, forwarded: false, chain, csr, signature, sans: vec![] }
    }

    fn after_its_end(&self, more: Duration) -> UnixTime {
        UnixTime::since_unix_epoch(Duration::from_secs(self.certificate.not_after.as_secs()) + more)
    }
}

fn sign(key: &KeyPair, message: &[u8]) -> Vec<u8> {
    rcgen::SigningKey::sign(key, message).unwrap()
}

impl Rig {
    async fn joined(&self, new: NewToken) -> Joined {
        let (token, key) = (self.token(new).await, key());
        let enrolled = self.enrolment.enrol(self.request(&token, &key)).await.unwrap();
        Joined::with(key, enrolled.chain)
    }

    /// A node with a certificate that the CA issued otherwise.
    fn issued(&self, spiffe: &str, validity: Validity) -> Joined {
        let files = self.directory.path().join("certs");
        let ca = Ca::load(&files.join("ca_cert.pem"), &files.join("ca_key.pem")).unwrap();
        let (spiffe, key) = (spiffe.parse().unwrap(), key());
        let request = LeafRequest { spiffe, sans: vec![], grant: None, vouchers: Vec::new(), validity };
        let public_key = rcgen::PublicKeyData::subject_public_key_info(&key);
        Joined::with(key, vec![ca.certify(&request, &public_key).unwrap().to_vec()])
    }

    fn renew(&self, request: &RenewRequest, now: UnixTime) -> Result<PeerCertificate, &'static str> {
        let issued = self.enrolment.renew_now(request, now).map_err(|refusal| refusal.word())?;
        Ok(PeerCertificate::parse(&issued[0]).unwrap())
    }

    fn recover(&self, request: &RecoverRequest, now: UnixTime) -> Result<PeerCertificate, &'static str> {
        let issued = self.enrolment.recover_now(request, now).map_err(|refusal| refusal.word())?;
        Ok(PeerCertificate::parse(&issued[0]).unwrap())
    }
}

#[tokio::test]
async fn nothing_is_issued_to_an_evicted_node_until_it_is_readmitted() {
    let rig = rig().await;
    let (node, new, now) = (rig.joined(plain()).await, key(), UnixTime::now());
    let token = rig.token(NewToken { replace: true, ..plain() }).await;
    rig.enrolment.revocations.set_banned(["new".parse().unwrap()].into());
    assert_eq!(rig.refused(rig.request(&token, &new)).await, "evicted");
    assert_eq!(rig.renew(&node.renewal(&new), now).expect_err("refused"), "evicted");
    let later = node.after_its_end(DAY);
    assert_eq!(rig.recover(&node.recovery(&new), later).expect_err("refused"), "evicted");
    assert_eq!(rig.counted("evicted"), "1", "the enrolment; the others are counted with their answers");
    rig.enrolment.revocations.set_banned(Default::default());
    assert!(rig.renew(&node.renewal(&new), now).is_ok());
}

#[tokio::test]
async fn a_renewal_gives_the_same_again_for_another_key_whatever_the_request_wishes() {
    let rig = rig().await;
    let node = rig.joined(NewToken { grant: Some(Grant::parse(&["demo.*"]).unwrap()), ..plain() }).await;
    let new = key();
    let mut params = CertificateParams::new(vec!["coordinator.example".to_owned()]).unwrap();
    params.subject_alt_names.push(SanType::URI("spiffe://shop/coordinator/c".try_into().unwrap()));
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&new).unwrap().der().to_vec();
    let sans = ["new.example", "c", "spiffe://shop/admin/root"].map(str::to_owned).to_vec();
    let enrolled = rig.enrolment.renew(RenewRequest { csr, sans, ..node.renewal(&new) }).await.unwrap();

    let certificate = PeerCertificate::parse(&enrolled.chain[0]).unwrap();
    assert_eq!(certificate.spiffe, node.certificate.spiffe);
    assert_eq!(certificate.grant, node.certificate.grant);
    assert_eq!(certificate.public_key, rcgen::PublicKeyData::subject_public_key_info(&new));
    let info = inspect(pem::to_text(&enrolled.chain[0]).as_bytes(), UnixTime::now()).unwrap().remove(0);
    assert_eq!((info.is_ca, info.dns_names), (false, vec!["new.example".to_owned()]));
    assert_eq!(rig.counted("renewed"), "1");
}

#[tokio::test]
async fn a_renewal_says_who_issued_what_it_replaces() {
    let (rig, now) = (rig().await, UnixTime::now());
    let files = rig.directory.path().join("certs");
    let root = Ca::load(&files.join("ca_cert.pem"), &files.join("ca_key.pem")).unwrap();
    let (cluster, c2, ca_key) = ("shop".parse().unwrap(), "c-2".parse::<NodeId>().unwrap(), key());
    let public_key = rcgen::PublicKeyData::subject_public_key_info(&ca_key);
    let der = root.certify_coordinator(&cluster, &c2, &public_key, now).unwrap();
    let own = Ca::from_issuer_pem(&pem::to_text(&der), &ca_key.serialize_pem()).unwrap();
    let (node_key, validity) = (key(), Validity::days(now, 1).unwrap());
    let spiffe = "spiffe://shop/worker/w".parse().unwrap();
    let request = LeafRequest { spiffe, sans: vec![], grant: None, vouchers: vec![], validity };
    let leaf = own.certify(&request, &rcgen::PublicKeyData::subject_public_key_info(&node_key)).unwrap();
    let chain = vec![leaf.to_vec(), der.to_vec()];
    let certificate = PeerCertificate::parse_chain(&chain).unwrap();
    let node = Joined { key: node_key, chain, certificate };

    let new = key();
    let renewed = rig.enrolment.renew_now(&node.renewal(&new), now).unwrap();
    let again = Joined::with(new, renewed);
    let vouchers = vec![c2];
    assert_eq!(again.certificate.vouchers, vouchers, "issued by the root, for what c-2's CA said");
    assert_eq!(rig.renew(&again.renewal(&key()), now).unwrap().vouchers, vouchers, "and for good");
    let late = rig.recover(&again.recovery(&key()), again.after_its_end(DAY));
    assert_eq!(late.unwrap().vouchers, vouchers);
}

#[tokio::test]
async fn a_renewal_lives_from_now_on_and_is_recorded_before_it_is_told() {
    let rig = rig().await;
    let node = rig.joined(plain()).await;
    let (new, later) =
        (key(), UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + 20 * DAY));
    let certificate = rig.renew(&node.renewal(&new), later).unwrap();
    assert_eq!(certificate.not_after.as_secs(), later.as_secs() + 30 * DAY.as_secs());
    let text = std::fs::read_to_string(rig.directory.path().join("data/identity_state.json")).unwrap();
    assert!(text.contains(&String::from(hash(&certificate.public_key))), "the new key's hash is on disk");
    // The id stays taken as long as the new certificate lives, also once nobody has seen the node for long.
    let token = rig.token(plain()).await;
    let taken =
        rig.enrolment.prove(&rig.request(&token, &key()), token.expires).err().map(|refusal| refusal.word());
    assert_eq!(taken, Some("node_id_taken"));
}

#[tokio::test]
async fn only_a_worker_with_a_valid_certificate_of_its_own_connection_renews() {
    let rig = rig().await;
    let (node, new, now) = (rig.joined(plain()).await, key(), UnixTime::now());
    let anonymous = RenewRequest { presented: None, ..node.renewal(&new) };
    assert_eq!(rig.renew(&anonymous, now), Err("untrusted"));
    assert_eq!(rig.renew(&RenewRequest { forwarded: true, ..node.renewal(&new) }, now), Err("forwarded"));
    assert_eq!(rig.renew(&RenewRequest { csr: vec![1], ..node.renewal(&new) }, now), Err("csr"));
    assert_eq!(rig.renew(&node.renewal(&new), node.after_its_end(Duration::from_secs(1))), Err("lapsed"));
    let day = Validity::days(now, 1).unwrap();
    for spiffe in ["spiffe://shop/coordinator/c-2", "spiffe://shop/admin/a", "spiffe://shop/token-signer/c"] {
        assert_eq!(rig.renew(&rig.issued(spiffe, day).renewal(&new), now), Err("no_worker"), "{spiffe}");
    }
    let made_by_hand = rig.issued("spiffe://shop/worker/by-hand", day);
    assert!(rig.renew(&made_by_hand.renewal(&new), now).is_ok());
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_an_old_key_has_no_second_future() {
    let rig = rig().await;
    let (node, new) = (rig.joined(plain()).await, key());
    let at =
        |days: u32| UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) + DAY * days);
    let renewed = rig.renew(&node.renewal(&new), at(20)).unwrap();
    assert_eq!(rig.renew(&node.renewal(&new), at(21)).unwrap().public_key, renewed.public_key);
    // A copy of the old files, on some other host.
    assert_eq!(rig.renew(&node.renewal(&key()), at(21)), Err("superseded"));
    assert_eq!(rig.recover(&node.recovery(&key()), at(35)), Err("superseded"));
    assert!(rig.recover(&node.recovery(&new), at(35)).is_ok(), "the newest key itself");
}

#[tokio::test]
async fn an_id_that_was_handed_over_is_not_renewed_for_the_former_holder() {
    let rig = rig().await;
    let before = Validity::lasting(
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) - DAY),
        30 * DAY,
    );
    let former = rig.issued("spiffe://shop/worker/new", before);
    rig.joined(NewToken { replace: true, ..plain() }).await;
    assert_eq!(rig.renew(&former.renewal(&key()), UnixTime::now()), Err("superseded"));
    assert_eq!(rig.recover(&former.recovery(&key()), former.after_its_end(DAY)), Err("superseded"));
    let fault = rig.enrolment.renew(former.renewal(&key())).await.unwrap_err().to_fault();
    assert_eq!(fault.reason, Reason::Denied);
    assert!(fault.message.contains("another key has a newer certificate of new"), "{fault}");
}

#[tokio::test]
async fn what_another_coordinator_issued_is_known_from_gossip() {
    let rig = rig().await;
    let validity = |days_ago: u32| {
        let then = Duration::from_secs(UnixTime::now().as_secs()) - DAY * days_ago;
        Validity::lasting(UnixTime::since_unix_epoch(then), 30 * DAY)
    };
    let (old, newer) = (
        rig.issued("spiffe://shop/worker/new", validity(9)),
        rig.issued("spiffe://shop/worker/new", validity(1)),
    );
    let mut member = seen(Role::Worker, MemberState::Alive, 0);
    let record =
        NodeRecord { certificate_chain: vec![newer.chain[0].clone().into()], ..NodeRecord::default() };
    member.records = Arc::new(RecordView { node: record, ..member.records.as_ref().clone() });
    rig.view.send_replace(Arc::new(View { members: [("new".parse().unwrap(), member)].into() }));
    assert_eq!(rig.renew(&old.renewal(&key()), UnixTime::now()), Err("superseded"));
    assert!(rig.renew(&newer.renewal(&key()), UnixTime::now()).is_ok());
}

#[tokio::test]
async fn an_expired_certificate_is_recovered_within_the_window_and_not_a_second_later() {
    let rig = rig().await;
    let node = rig.joined(NewToken { grant: Some(Grant::parse(&["demo.*"]).unwrap()), ..plain() }).await;
    let (new, last) = (key(), node.after_its_end(30 * DAY));
    let too_late = UnixTime::since_unix_epoch(Duration::from_secs(last.as_secs() + 1));
    assert_eq!(rig.recover(&node.recovery(&new), too_late), Err("too_old"));
    let recovered = rig.recover(&node.recovery(&new), last).unwrap();
    assert_eq!((&recovered.spiffe, &recovered.grant), (&node.certificate.spiffe, &node.certificate.grant));
    assert!(recovered.is_in_time(last));
    // By a clock that is behind, the certificate has not expired yet.
    assert!(rig.recover(&node.recovery(&new), UnixTime::now()).is_ok());

    let refusal = rig.enrolment.recover_now(&node.recovery(&new), too_late).unwrap_err().to_fault();
    assert_eq!(refusal.reason, Reason::Denied);
    assert!(refusal.message.contains("longer ago than recover_window (30d); join anew"), "{refusal}");
}

#[tokio::test]
async fn a_recovery_takes_the_old_keys_word_for_this_very_request() {
    let rig = rig().await;
    let (node, new) = (rig.joined(plain()).await, key());
    let now = node.after_its_end(DAY);
    let good = node.recovery(&new);
    let other_key = RecoverRequest { csr: csr(&key()), ..good.clone() };
    assert_eq!(rig.recover(&other_key, now), Err("untrusted"), "signed for another request");
    let by_new = RecoverRequest {
        signature: sign(&new, &recovery_message(&"shop".parse().unwrap(), &good.csr)),
        ..good.clone()
    };
    assert_eq!(rig.recover(&by_new, now), Err("untrusted"), "signed by the new key");
    let elsewhere = RecoverRequest {
        signature: sign(&node.key, &recovery_message(&"other".parse().unwrap(), &good.csr)),
        ..good.clone()
    };
    assert_eq!(rig.recover(&elsewhere, now), Err("untrusted"), "meant for another cluster");
    let bare = RecoverRequest { signature: sign(&node.key, &good.csr), ..good.clone() };
    assert_eq!(rig.recover(&bare, now), Err("untrusted"), "signed without saying what for");
    for (request, word) in [
        (RecoverRequest { chain: vec![], ..good.clone() }, "untrusted"),
        (RecoverRequest { chain: vec![vec![1]], ..good.clone() }, "untrusted"),
        (RecoverRequest { chain: vec![good.chain[0].clone(); 9], ..good.clone() }, "untrusted"),
        (RecoverRequest { signature: vec![], ..good.clone() }, "untrusted"),
        (RecoverRequest { csr: vec![1], ..good.clone() }, "csr"),
        (RecoverRequest { forwarded: true, ..good.clone() }, "forwarded"),
    ] {
        assert_eq!(rig.recover(&request, now), Err(word));
    }
    assert!(rig.recover(&good, now).is_ok());
}

#[tokio::test]
async fn a_stranger_is_told_nothing_about_a_recovery_and_is_limited() {
    let rig = rig().await;
    let node = rig.joined(plain()).await;
    let stranger = super::super::super::attempts::PER_ADDRESS;
    let foreign = self::rig().await.joined(plain()).await;
    for request in [
        foreign.recovery(&key()),
        RecoverRequest { signature: vec![0; 70], ..node.recovery(&key()) },
        RecoverRequest { chain: vec![b"x".to_vec()], ..node.recovery(&key()) },
    ] {
        let refusal = rig.enrolment.recover(request).await.unwrap_err();
        assert!(matches!(
            refusal,
            Refusal::Untrusted(
                TrustError::OtherCa { .. } | TrustError::Signature(_) | TrustError::Certificate(_)
            )
        ));
        let fault = refusal.to_fault();
        let told = "the certificate and the signature do not prove a node of this cluster";
        assert_eq!((fault.reason, fault.message.as_str()), (Reason::Denied, told));
    }
    for _ in 3..stranger {
        rig.enrolment.recover(foreign.recovery(&key())).await.unwrap_err();
    }
    let fault = rig.enrolment.recover(node.recovery(&key())).await.unwrap_err().to_fault();
    assert_eq!(fault.reason, Reason::RateLimited);
    assert_eq!(rig.counted("untrusted"), stranger.to_string());
}

#[tokio::test]
async fn an_admins_certificate_and_a_coordinators_are_not_recovered() {
    let rig = rig().await;
    let past = Validity::lasting(
        UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) - 2 * DAY),
        DAY,
    );
    for (spiffe, word) in [
        ("spiffe://shop/admin/a", "untrusted"),
        ("spiffe://shop/token-signer/c", "untrusted"),
        ("spiffe://shop/coordinator/c-2", "no_worker"),
    ] {
        let expired = rig.issued(spiffe, past);
        assert_eq!(rig.recover(&expired.recovery(&key()), UnixTime::now()), Err(word), "{spiffe}");
    }
}

#[tokio::test]
async fn a_worker_that_is_asked_says_who_issues() {
    let rig = rig().await;
    let node = rig.joined(plain()).await;
    let Rig { enrolment, view, directory, .. } = rig;
    drop(enrolment);
    let worker = load(directory.path(), view.subscribe(), &Metrics::default(), "w");
    let fault = worker.renew(node.renewal(&key())).await.unwrap_err().to_fault();
    assert_eq!(fault.reason, Reason::Precondition);
    assert!(fault.message.starts_with("w is no coordinator; "), "{fault}");
}

#[tokio::test]
async fn a_node_that_renews_again_and_again_is_slowed_down() {
    let rig = rig().await;
    let (node, new) = (rig.joined(plain()).await, key());
    for _ in 0..super::super::super::attempts::PER_ADDRESS {
        rig.enrolment.renew(node.renewal(&new)).await.unwrap();
    }
    assert_eq!(rig.enrolment.renew(node.renewal(&new)).await.unwrap_err().word(), "limited");
}
