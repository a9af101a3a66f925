//! A cluster on hosts of its own is cut in two, serves in both halves, and heals: real processes in network namespaces,
//! whose links `scripts/halves.sh` cuts and restores. Where a user may not make namespaces it says so and passes.

#![expect(clippy::print_stdout, reason = "the times are figures for the reader of the run")]

mod support;

use futures_util::future::join_all;
use p2p_proto::v1::{CreateJoinTokenRequest, ExamineRequest, MemberState, revoke_token_request::What};
use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};
use support::{Binary, Certificates, Client, NodeConfig, TestNode, greeter::HelloRequest, state_of, within};
use tonic::Request;

/// Set in the process that runs inside the namespaces.
const INSIDE: &str = "P2P_TEST_INSIDE_HALVES";
/// The hosts of each half.
const HALVES: [&[&str]; 2] = [&["c1", "w1", "g1"], &["c2", "w2", "g2", "w3"]];
/// What only a defect takes longer than: a silent member is suspect after a probe and down 7 s later; ends that were cut
/// off look for each other every 30 s.
const SPLIT: Duration = Duration::from_secs(30);
const HEAL: Duration = Duration::from_secs(60);
const PORT: u16 = 8001;

#[test]
fn a_cluster_cut_in_two_serves_in_both_halves_and_heals() {
    if env::var_os(INSIDE).is_some() {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        return runtime.block_on(split_and_heal());
    }
    let possible = Command::new(halves()).args(["enter", "true"]).output().expect("a shell");
    if !possible.status.success() {
        println!("skipped, no namespaces here: {}", String::from_utf8_lossy(&possible.stderr));
        return;
    }
    // Inside goes on as another process, so that nothing is left when it ends, however it ends.
    let test = "a_cluster_cut_in_two_serves_in_both_halves_and_heals";
    let this = env::current_exe().expect("the path of this test");
    let ended = Command::new(halves())
        .arg("enter")
        .arg(this)
        .args([test, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .status();
    assert!(ended.expect("started").success(), "what is printed above says why");
}

fn halves() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../scripts/halves.sh")
}

fn halves_do(arguments: &[&str]) {
    let done = Command::new(halves()).args(arguments).status().expect("a shell");
    assert!(done.success(), "halves.sh {arguments:?}");
}

/// A running node and a client of it, which reaches it cut or not.
struct Host {
    node: TestNode,
    admin: Client,
}

impl Host {
    async fn start(certificates: &Certificates, binary: Binary, config: NodeConfig) -> Self {
        let node = TestNode::start(binary, placed(config)).await;
        let admin = certificates.client(&node, "admin").await;
        Self { node, admin }
    }

    fn name(&self) -> &str {
        &self.node.config.name
    }

    /// How it sees the `others`, if not all of them are in one of `states`.
    async fn sees(&self, others: &[&str], states: &[MemberState]) -> Result<(), String> {
        let members = self.admin.members().await.map_err(|status| status.to_string())?;
        for other in others {
            match state_of(&members, other) {
                Some(state) if states.contains(&state) => {}
                state => return Err(format!("{other} is {state:?} at {}", self.name())),
            }
        }
        Ok(())
    }
}

/// Where the host of a node is in the network of `halves.sh`.
fn placed(config: NodeConfig) -> NodeConfig {
    let (half, number) = place(&config.name);
    let name = config.name.clone();
    config
        .set("bind_address", "0.0.0.0")
        .set("port", &PORT.to_string())
        .set("advertise_addresses", &format!("[{}]", address(&name)))
        .on(&name, [10, 78, half, number].into())
}

fn place(host: &str) -> (u8, u8) {
    let hosts = (1..).zip(HALVES).flat_map(|(half, hosts)| hosts.iter().map(move |host| (half, *host)));
    let (number, (half, _)) = (11..).zip(hosts).find(|(_, (_, found))| *found == host).expect("a host");
    (half, number)
}

fn address(host: &str) -> String {
    format!("10.77.0.{}:{PORT}", place(host).1)
}

/// Waits until each of `hosts` sees each of `others` in one of `states`.
async fn all_see(what: &str, hosts: &[&Host], others: &[&str], states: &[MemberState]) -> Duration {
    let limit = if states.contains(&MemberState::Down) { SPLIT } else { HEAL };
    let waits = hosts.iter().map(|host| within(limit, what, async || host.sees(others, states).await));
    join_all(waits).await.into_iter().max().expect("hosts")
}

/// The start that each member is known by at `host`.
async fn epochs(host: &Host) -> BTreeMap<String, u64> {
    let members = host.admin.members().await.expect("a list");
    members.into_iter().map(|member| (member.node_id, member.epoch)).collect()
}

/// Calls through `entry` until a hundred calls in a row were answered within a second each. Returns how many were not, and
/// when the last one of those ended.
async fn call_until_served(entry: &Host, cut: Instant) -> (u32, Duration) {
    let (mut failed, mut last, mut in_a_row) = (0, Duration::ZERO, 0);
    while in_a_row < 100 {
        assert!(cut.elapsed() < SPLIT, "calls through {} still fail: {failed} so far", entry.name());
        let mut request = Request::new(HelloRequest { name: "world".to_owned() });
        request.set_timeout(Duration::from_secs(1));
        if entry.admin.greeter().say_hello(request).await.is_ok() {
            in_a_row += 1;
        } else {
            (failed, last, in_a_row) = (failed + 1, cut.elapsed(), 0);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (failed, last)
}

/// That a new connection to the node, whose certificates both sides verify, is served by the provider of its half, also
/// with a token.
async fn serves(certificates: &Certificates, entry: &Host, provider: &str, token: &str) {
    let admin = certificates.client(&entry.node, "admin").await;
    let reply = admin.hello("world").await.expect("greeted");
    assert_eq!((reply.node.as_str(), reply.caller.as_str()), (provider, "spiffe://test/admin/admin"));
    let info = admin.call("p2p.v1.SystemService/GetInfo", provider, "{}").await.expect("answered");
    assert_eq!(info.node, provider, "asked by name");
    let stranger = certificates.stranger(&entry.node).await;
    assert_eq!(stranger.verdict(token).await.as_deref(), Ok(""));
    let mut request = Request::new(HelloRequest { name: "world".to_owned() });
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("a value"));
    let reply = stranger.greeter().say_hello(request).await.expect("greeted").into_inner();
    assert_eq!((reply.node.as_str(), reply.caller.as_str()), (provider, "ci"));
}

/// The members that do not answer `host`.
async fn unreached(host: &Host) -> Vec<String> {
    let examined =
        host.admin.system().examine(ExamineRequest {}).await.expect("an answer in time").into_inner();
    examined.legs.into_iter().filter(|leg| !leg.reason.is_empty()).map(|leg| leg.node_id).collect()
}

async fn split_and_heal() {
    halves_do(&["up", &HALVES[0].join(" "), &HALVES[1].join(" ")]);
    let certificates =
        Certificates::new(&["c1:coordinator", "w1:worker", "g1:worker", "w2:worker", "g2:worker"]);
    let (at_c1, at_c2) = (address("c1"), address("c2"));
    let start = async |binary, name: &str| {
        let config = certificates.config(name).seeds(&[&at_c1, &at_c2]);
        Host::start(&certificates, binary, config).await
    };
    let join = async |by: &Host, name: &str, role: &str| {
        let request = CreateJoinTokenRequest { role: role.to_owned(), ..Default::default() };
        let file = certificates.path(&format!("{name}.token"));
        fs::write(&file, by.admin.join_token(request).await.expect("a token")).expect("written");
        Host::start(&certificates, Binary::Node, NodeConfig::joining(name, &file)).await
    };

    // A coordinator, a worker and a provider in each half; the second coordinator has a CA of its own.
    let c1 = start(Binary::Node, "c1").await;
    let c2 = join(&c1, "c2", "coordinator").await;
    let (w1, g1) = (start(Binary::Node, "w1").await, start(Binary::Greeter, "g1").await);
    let (w2, g2) = (start(Binary::Node, "w2").await, start(Binary::Greeter, "g2").await);
    let (first, second) = ([&c1, &w1, &g1], [&c2, &w2, &g2]);
    let everybody = [&first[..], &second[..]].concat();
    let names: Vec<&str> = everybody.iter().map(|host| host.name()).collect();
    let alive = [MemberState::Alive];
    all_see("all to join", &everybody, &names, &alive).await;
    for entry in &everybody {
        for provider in ["g1", "g2"] {
            entry.admin.awaits_provider("demo.v1.Greeter/SayHello", provider).await;
        }
    }
    let token = c1.admin.issue("ci", &["demo.*"]).await.expect("issued");
    let leaked = c1.admin.issue("leaked", &["demo.*"]).await.expect("issued");
    for host in &everybody {
        for token in [&token, &leaked] {
            host.admin.awaits_verdict(token, "").await;
        }
    }
    let before = epochs(&c1).await;

    // The cut.
    halves_do(&["cut"]);
    let cut = Instant::now();
    let doubted = [MemberState::Suspect, MemberState::Down];
    let (far_from_first, far_from_second) = (["c2", "w2", "g2"], ["c1", "w1", "g1"]);
    let seen = async |what, states: &[MemberState]| {
        let (one, other) = tokio::join!(
            all_see(what, &first, &far_from_first, states),
            all_see(what, &second, &far_from_second, states)
        );
        one.max(other)
    };
    let calls = async || tokio::join!(call_until_served(&w1, cut), call_until_served(&w2, cut));
    let (suspect, down, failures) =
        tokio::join!(seen("a doubt", &doubted), seen("the end", &[MemberState::Down]), calls());
    println!("cut: each half doubts all of the other after {suspect:?}, and has given it up after {down:?}");
    for (entry, (count, last)) in [("w1", failures.0), ("w2", failures.1)] {
        println!("cut: {count} calls through {entry} failed, the last one {last:?} after the cut");
    }

    // Both halves serve, verify, and change.
    for (entries, provider) in [(first, "g1"), (second, "g2")] {
        for entry in entries {
            serves(&certificates, entry, provider, &token).await;
            entry.sees(&[provider], &alive).await.expect("its own half is in order");
        }
    }
    // Each half tells which legs are broken.
    let (of_w1, of_w2) = tokio::join!(unreached(&w1), unreached(&w2));
    let in_order = |mut names: [&str; 3]| {
        names.sort_unstable();
        names.map(str::to_owned).to_vec()
    };
    assert_eq!((of_w1, of_w2), (in_order(far_from_first), in_order(far_from_second)));
    let w3 = join(&c2, "w3", "worker").await;
    all_see("the newcomer", &[&c2, &w2, &g2], &["w3"], &alive).await;
    let late = c2.admin.issue("ci", &["demo.*"]).await.expect("issued");
    serves(&certificates, &w3, "g2", &late).await;
    c1.admin.revoke(What::Token(leaked.clone())).await.expect("revoked");
    for (hosts, verdict) in [(first, "revoked"), (second, "")] {
        for host in hosts {
            host.admin.awaits_verdict(&leaked, verdict).await;
        }
    }
    println!("cut for {:?}: both halves call, verify, issue, revoke and enrol", cut.elapsed());

    // The cure.
    halves_do(&["restore"]);
    let everybody = [&everybody[..], &[&w3]].concat();
    let names = [&names[..], &["w3"]].concat();
    let healed = all_see("all to find each other", &everybody, &names, &alive).await;
    println!("restored: all see all alive after {healed:?}");
    let restored = Instant::now();
    for host in &everybody {
        host.admin.awaits_verdict(&leaked, "revoked").await;
        host.admin.awaits_verdict(&late, "").await;
        host.admin.awaits_verdict(&token, "").await;
        for provider in ["g1", "g2"] {
            host.admin.awaits_provider("demo.v1.Greeter/SayHello", provider).await;
        }
    }
    println!("restored: all know what changed in either half {:?} later", restored.elapsed());
    for entry in [&w1, &w2] {
        // The one that was slow or away a moment ago is given less at first.
        let mut greeted = BTreeSet::new();
        within(HEAL, "calls at both providers", async || {
            let calls = join_all((0..20).map(|_| entry.admin.hello("world"))).await;
            greeted.extend(calls.into_iter().map(|reply| reply.expect("greeted").node));
            if greeted.iter().eq(["g1", "g2"]) { Ok(()) } else { Err(format!("{greeted:?}")) }
        })
        .await;
    }
    for host in &everybody {
        let mut now = epochs(host).await;
        now.remove("w3");
        assert_eq!(now, before, "no node has started anew");
    }
}
