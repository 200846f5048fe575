//! The Helm chart without a cluster: what it renders, what it refuses, and whether the services
//! understand what it tells them.
//!
//! `cases/` are sets of values, `golden/` what each renders, `refused/` sets that must fail with the
//! sentence in their first line. `PLAZA_BLESS=1` writes `golden/` and `k8s/plain/` anew; read the
//! difference before you commit it.

mod extensions;
mod flags;
mod golden;
mod helm;
mod helm_3;
mod manifests;
mod monitoring;
mod notes;
mod refused;
mod renders;
mod rules;
mod upgrade;
mod versions;
