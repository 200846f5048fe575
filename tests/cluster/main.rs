//! Plaza in a real Kubernetes: the chart and the images as a platform engineer meets them.
//!
//! ```text
//! cargo test -p plaza-tests --test cluster                all checks, in their order
//! cargo test -p plaza-tests --test cluster -- c04         those whose name contains a word
//! ```
//!
//! The cluster is one node of this machine that `machine/cluster` brings up and that ends with the checks.
//! Any other is taken when `PLAZA_TEST_KUBECONFIG` names its kubeconfig and `PLAZA_TEST_LOAD` the command
//! that takes an image's archive, such as `kind load image-archive --name plaza`; the nodes must be
//! reachable from here. `PLAZA_TEST_TIER=fast` leaves all of it out.
//!
//! | module | job |
//! |---|---|
//! | [`kube`] | a cluster, kubectl, helm |
//! | [`release`] | Plaza installed in a namespace |
//! | [`swarm`] | clients that chat and record, while the cluster moves |
//! | [`crowd`] | clients that stay at one pod |
//! | [`images`], [`install`], [`readme`] | checks of what a newcomer meets |
//! | [`moves`], [`shed`], [`autoscaler`], [`policies`], [`api`], [`tls`] | checks of what a cluster does to Plaza |
//! | [`traces`], [`observability`] | checks of what is seen of Plaza |

#![expect(clippy::print_stdout, reason = "the list of checks is the program's output")]

mod api;
mod autoscaler;
mod crowd;
mod images;
mod install;
mod kube;
mod moves;
mod observability;
mod policies;
mod readme;
mod release;
mod shed;
mod swarm;
mod tls;
mod traces;

use futures_util::FutureExt;
use kube::Kube;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::Instant;

type Running<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// A check: its name, what it shows, and how.
struct Check {
    name: &'static str,
    shows: &'static str,
    run: fn(&Kube) -> Running<'_>,
}

const fn check(name: &'static str, shows: &'static str, run: fn(&Kube) -> Running<'_>) -> Check {
    Check { name, shows, run }
}

/// Each check begins with an empty namespace or with the release of those before it, whichever it finds.
const CHECKS: &[Check] = &[
    check("cluster::c00_images", "images hold one program, its bill of materials, and no shell", |kube| {
        Box::pin(images::hold_one_program_and_what_it_needs(kube))
    }),
    check("cluster::c01_install", "with nothing but image names every pod is ready and helm test passes", |kube| {
        Box::pin(install::with_nothing_but_image_names(kube))
    }),
    check("cluster::c02_clients", "stock clients on two pods share a room", |kube| {
        Box::pin(install::stock_clients_share_a_room(kube))
    }),
    check("cluster::c03_grpc", "the session service answers a gRPC client through its Service", |kube| {
        Box::pin(install::the_session_service_answers(kube))
    }),
    check("cluster::c04_scale", "edges from 1 to 3 to 1 under traffic", |kube| Box::pin(moves::scale_edges(kube))),
    check("cluster::c05_restart", "rollout restart of every part under traffic", |kube| {
        Box::pin(moves::restart_every_part(kube))
    }),
    check("cluster::c06_force", "pods of every part deleted by force under traffic", |kube| {
        Box::pin(moves::delete_pods_by_force(kube))
    }),
    check("cluster::c07_upgrade", "an upgrade of every service and the way back under traffic", |kube| {
        Box::pin(moves::upgrade_and_roll_back(kube))
    }),
    check(
        "cluster::c08_autoscaler",
        "the autoscaler adds edges under load and takes the emptiest away, one by one",
        |kube| Box::pin(autoscaler::follows_the_load(kube)),
    ),
    check("cluster::c09_policies", "strangers reach the edge and nothing else", |kube| {
        Box::pin(policies::let_nobody_else_in(kube))
    }),
    check("cluster::c10_api", "pods use the API with exactly the chart's rights, and chat without any", |kube| {
        Box::pin(api::is_used_with_the_charts_rights_and_not_needed(kube))
    }),
    check("cluster::c11_traces", "a message is one trace in Jaeger, over pods", |kube| {
        Box::pin(traces::come_to_jaeger(kube))
    }),
    check("cluster::c12_tls", "services speak TLS to each other, with certificates of both sides", |kube| {
        Box::pin(tls::is_spoken_between_the_services(kube))
    }),
    check("cluster::c13_uninstall", "uninstall leaves nothing behind", |kube| {
        Box::pin(install::uninstall_leaves_nothing(kube))
    }),
    check("cluster::c14_readme", "the quick start of the README works as it is written", |kube| {
        Box::pin(readme::installs_as_it_is_written(kube))
    }),
    check(
        "cluster::c15_observability",
        "k8s/observability shows traces, metrics and dashboards of a release",
        |kube| Box::pin(observability::watches_a_release(kube)),
    ),
    check("cluster::c16_shed", "a full edge sends its excess to a new one under traffic", |kube| {
        Box::pin(shed::moves_the_excess_to_a_new_edge(kube))
    }),
    check("cluster::c17_plain", "the manifests without Helm work as their README says", |kube| {
        Box::pin(readme::plain_manifests_work_as_it_is_written(kube))
    }),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--list") {
        CHECKS.iter().for_each(|check| println!("{}: test", check.name));
        return ExitCode::SUCCESS;
    }
    let words: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |check: &&Check| words.is_empty() || words.iter().any(|word| check.name.contains(*word));
    let checks: Vec<&Check> = CHECKS.iter().filter(is_wanted).collect();
    if checks.is_empty() || std::env::var("PLAZA_TEST_TIER").as_deref() == Ok("fast") {
        return ExitCode::SUCCESS;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be built");
    runtime.block_on(run(&checks))
}

/// Runs checks one after the other, and prints each with its time.
async fn run(checks: &[&Check]) -> ExitCode {
    let begin = Instant::now();
    let kube = match Kube::find() {
        Ok(kube) => kube,
        Err(why) => {
            plaza_tests::not_run("the cluster's checks", &why);
            return ExitCode::SUCCESS;
        }
    };
    println!("cluster: ready after {:.0} s", begin.elapsed().as_secs_f64());
    let mut failed = Vec::new();
    for check in checks {
        let begin = Instant::now();
        let outcome = AssertUnwindSafe((check.run)(&kube)).catch_unwind().await;
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {} ... {word} ({:.0} s): {}", check.name, begin.elapsed().as_secs_f64(), check.shows);
        if outcome.is_err() {
            failed.push(check.name);
            println!("{}", kube.situation());
        }
    }
    let (count, seconds) = (checks.len(), begin.elapsed().as_secs_f64());
    println!("\n{} passed, {} failed in {seconds:.0} s", count - failed.len(), failed.len());
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
