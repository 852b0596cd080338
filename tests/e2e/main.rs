//! End-to-end tests: a module per subject.
#![allow(missing_docs, reason = "test names say it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "long tests report figures to whoever runs them with --nocapture")]

/// Makes each of these functions a test of the module in every way that it is run, or in one.
macro_rules! on_every_runtime {
    ($($scenario:ident),* $(,)?) => {
        on_every_runtime!(compiled, Aot: $($scenario),*);
        on_every_runtime!(interpreted, Interpreter: $($scenario),*);
        on_every_runtime!(oldest_compiled, OldestAot: $($scenario),*);
        on_every_runtime!(oldest_interpreted, OldestInterpreter: $($scenario),*);
    };
    ($place:ident, $runtime:ident: $($scenario:ident),* $(,)?) => {
        mod $place {
            $(#[test]
            fn $scenario() {
                super::$scenario(harness::Runtime::$runtime);
            })*
        }
    };
}

/// Makes each of these functions a test of the service with every server, or with one.
macro_rules! on_every_server {
    ($($scenario:ident),* $(,)?) => {
        on_server!(on_mariadb, MariaDb: $($scenario),*);
        on_server!(on_mysql, MySql: $($scenario),*);
    };
}
macro_rules! on_server {
    ($place:ident, $flavour:ident: $($scenario:ident),* $(,)?) => {
        mod $place {
            $(#[test]
            fn $scenario() {
                super::$scenario(harness::Flavour::$flavour);
            })*
        }
    };
}

mod bodies;
mod control;
mod database;
mod development;
mod dns;
mod embedded;
mod http;
mod inference;
mod inference_bodies;
mod inference_clients;
mod inference_images;
mod inference_models;
mod inference_queue;
mod lifecycle;
mod limits;
mod metrics;
mod mysql;
mod mysql_faults;
mod mysql_locks;
mod mysql_login;
mod mysql_pressure;
mod mysql_small;
mod mysql_starts;
mod plugin;
mod readme;
mod signals;
mod soak;
mod tls;
mod users;
mod usher;
mod usher_cache;
mod usher_confine;
mod usher_cpus;
mod usher_drain;
mod usher_poll;
mod usher_reload;
mod usher_soak;
mod usher_top;
mod usher_transfer;
mod usher_watch;
mod workers;
