//! TLS to MySQL: what is trusted, what is refused and with which words, and what is cured meanwhile.

use std::fs;
use std::path::Path;

use harness::{Authority, Builder, Database, Dns, Flavour, Identity, Runtime, Service, Validity, eventually};
use tempfile::TempDir;

use crate::mysql::{assert_unavailable, at, ready};
use crate::users;

on_every_server!(users_are_kept_through_tls_by_name_and_by_address);

/// Whom the server's certificates are for, unless a test says otherwise.
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// A server that wants TLS, and the folder with its files and the service's.
struct Secured {
    database: Database,
    folder: TempDir,
    authority: Authority,
}

impl Secured {
    /// With a certificate for [`HOSTS`] and `ca.pem` for the service.
    fn start() -> Self {
        Self::start_of(Flavour::MariaDb)
    }

    fn start_of(flavour: Flavour) -> Self {
        let authority = Authority::new("our own");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
        write(folder.path(), "server", &authority.sign(&HOSTS));
        let option = |name, file| format!("--{name}={}", folder.path().join(file).display());
        let database = Database::builder_of(flavour)
            .option(&option("ssl-cert", "server.pem"))
            .option(&option("ssl-key", "server.key"))
            .option(&option("ssl-ca", "ca.pem"))
            .start();
        database.sql("ALTER USER app REQUIRE SSL");
        Self { database, folder, authority }
    }

    /// Has the server present another certificate from now on, to new connections; there are no others.
    fn present(&self, identity: &Identity) {
        write(self.folder.path(), "server", identity);
        self.database.sql("FLUSH SSL");
        self.database.close_connections();
    }

    /// A service that trusts the CA in `ca.pem`.
    fn service(&self) -> Builder {
        self.at(&self.database.url()).env("DATABASE_CA_FILE", "ca.pem")
    }

    fn at(&self, url: &str) -> Builder {
        at(url).folder(self.folder.path())
    }

    fn url_by_name(&self) -> String {
        self.database.url().replace("127.0.0.1", "localhost")
    }
}

fn write(folder: &Path, name: &str, identity: &Identity) {
    fs::write(folder.join(name).with_extension("pem"), &identity.certificate).unwrap();
    fs::write(folder.join(name).with_extension("key"), &identity.key).unwrap();
}

fn users_are_kept_through_tls_by_name_and_by_address(flavour: Flavour) {
    for url in [|secured: &Secured| secured.database.url(), Secured::url_by_name] {
        let secured = Secured::start_of(flavour);
        let url = url(&secured);
        let service = secured.at(&url).env("DATABASE_CA_FILE", "ca.pem").start();
        ready(&service);
        users::a_user_lives_and_dies(&service);
        assert!(service.stdout().contains("by TLS"), "{}", service.stdout());
    }
}

/// The driver is told an address, and verifies what it is told; the name is what counts.
#[test]
fn a_certificate_is_for_the_name_whatever_address_that_has() {
    let secured = Secured::start();
    let dns = Dns::start();
    // Nothing listens at the first.
    dns.addresses("db.usher.test", &["127.0.0.3", "127.0.0.1"]);
    let url = secured.database.url().replace("127.0.0.1", "db.usher.test");
    let service = secured.at(&url).env("DATABASE_CA_FILE", "ca.pem").env("DNS_SERVER", dns.address()).start();
    // Its certificate is for the address.
    assert_unavailable(&service, "for another host", || service.get("/readyz"));
    secured.present(&secured.authority.sign(&["db.usher.test"]));
    ready(&service);
}

#[test]
fn a_server_that_wants_tls_is_not_used_without() {
    let secured = Secured::start();
    let service = secured.at(&secured.database.url()).start();
    assert_unavailable(&service, "denies access", || service.get("/readyz"));
}

#[test]
fn each_certificate_that_is_refused_has_its_own_words_and_the_right_one_is_taken_afterwards() {
    let secured = Secured::start();
    let other = Authority::new("our own");
    let ours = &secured.authority;
    let service = secured.service().env("LOG_LEVEL", "warn").start();
    let refused = [
        (other.sign(&HOSTS), "signed by nobody we trust", "DATABASE_CA_FILE"),
        (ours.sign_for(&HOSTS, Validity::Over), "has expired", "1999-12-31"),
        (ours.sign_for(&HOSTS, Validity::ToCome), "is not valid yet", "3000-01-01"),
        (ours.sign(&["db.example.org", "10.0.0.1"]), "for another host", "db.example.org"),
        (ours.sign(&["localhost"]), "for another host", "127.0.0.1"),
        (ours.sign(&[]), "names no host", "subjectAltName"),
        (ours.sign_version_1(), "version 1", "version 3"),
        (ours.own(), "that of a CA", "CA:FALSE"),
    ];
    for (identity, reason, advice) in refused {
        secured.present(&identity);
        assert_unavailable(&service, reason, || service.get("/readyz"));
        let (_, detail) = service.get("/readyz").problem(503);
        assert!(detail.contains("certificate") && detail.contains(advice) && detail.contains("SHA-256"), "{detail}");
        eventually("it is logged", || service.log().contains(&detail).then_some(()));
        let (_, shown) = service.get("/api/users").problem(503);
        assert!(shown.contains(reason) && !shown.contains("SHA-256"), "what clients see: {shown}");
        secured.present(&ours.sign(&HOSTS));
        ready(&service);
    }
}

#[test]
fn only_the_ca_that_is_given_is_trusted_and_of_a_bundle_each() {
    let secured = Secured::start();
    let other = Authority::new("another").certificate;
    let bundle = other.clone() + &secured.authority.certificate;
    fs::write(secured.folder.path().join("other.pem"), other).unwrap();
    fs::write(secured.folder.path().join("bundle.pem"), bundle).unwrap();
    ready(&secured.service().env("DATABASE_CA_FILE", "bundle.pem").start());
    for builder in [
        secured.service().env("DATABASE_CA_FILE", "other.pem"),
        // Without one, the public authorities are trusted; ours is none of them.
        secured.at(&(secured.database.url() + "?require_ssl=true")),
    ] {
        let service = builder.start();
        assert_unavailable(&service, "signed by nobody we trust", || service.get("/readyz"));
    }
}

#[test]
fn files_that_will_not_do_are_named_before_anything_is_bound() {
    let secured = Secured::start();
    let path = |name: &str| secured.folder.path().join(name);
    fs::write(path("empty.pem"), "").unwrap();
    fs::write(path("half.pem"), &secured.authority.certificate[..200]).unwrap();
    write(secured.folder.path(), "stranger", &secured.authority.sign(&[]));
    let outside = tempfile::NamedTempFile::new().unwrap();
    let outside = outside.path().display().to_string();
    let wrong: [(&[(&str, &str)], &str); 8] = [
        (&[("DATABASE_CA_FILE", "none.pem")], "DATABASE_CA_FILE names a file that cannot be read"),
        (&[("DATABASE_CA_FILE", &outside)], "is its folder granted"),
        (&[("DATABASE_CA_FILE", "empty.pem")], "DATABASE_CA_FILE names a file without a certificate"),
        (&[("DATABASE_CA_FILE", "server.key")], "DATABASE_CA_FILE names a file without a certificate"),
        (&[("DATABASE_CA_FILE", "half.pem")], "DATABASE_CA_FILE names a file that is damaged"),
        (&[("DATABASE_CLIENT_CERT_FILE", "server.pem")], "need each other"),
        (
            &[("DATABASE_CLIENT_CERT_FILE", "server.pem"), ("DATABASE_CLIENT_KEY_FILE", "stranger.key")],
            "DATABASE_CLIENT_KEY_FILE is not the key",
        ),
        (&[("DATABASE_URL", "mysql://app:pw@127.0.0.1/users?require_ssl=false")], "require_ssl=false"),
    ];
    for (environment, why) in wrong {
        let builder = environment.iter().fold(secured.service(), |builder, (name, value)| builder.env(name, value));
        let failed = builder.run();
        assert!(failed.status.code() == Some(2) && failed.stderr.contains(why), "{environment:?}: {failed:?}");
        assert!(!failed.stdout.contains("listening"), "{failed:?}");
    }
}

#[test]
fn a_server_without_tls_is_refused_where_tls_is_required() {
    let database = Database::start();
    let service = at(&(database.url() + "?require_ssl=true")).start();
    assert_unavailable(&service, "offers no TLS", || service.get("/readyz"));
}

#[test]
fn a_certificate_of_our_own_is_shown_to_a_server_that_asks() {
    let secured = Secured::start();
    secured.database.sql("ALTER USER app REQUIRE X509");
    let without = secured.service().start();
    assert_unavailable(&without, "denies access", || without.get("/readyz"));
    write(secured.folder.path(), "client", &secured.authority.sign(&["usher"]));
    let with = secured.service();
    let with = with.env("DATABASE_CLIENT_CERT_FILE", "client.pem").env("DATABASE_CLIENT_KEY_FILE", "client.key");
    ready(&with.start());
    // One that the server's authority did not sign is refused by the server.
    write(secured.folder.path(), "client", &Authority::new("another").sign(&["usher"]));
    let stranger = secured.service();
    let stranger =
        stranger.env("DATABASE_CLIENT_CERT_FILE", "client.pem").env("DATABASE_CLIENT_KEY_FILE", "client.key");
    let stranger = stranger.start();
    assert_unavailable(&stranger, "does not accept our side", || stranger.get("/readyz"));
}

#[test]
fn another_authority_is_trusted_after_a_reload() {
    let secured = Secured::start();
    let service = Service::builder(Runtime::Usher)
        .arg("--workers=2")
        .arg("--reload-timeout=2s")
        .arg(&format!("--dir=tls:{}:ro", secured.folder.path().display()))
        .env("DATABASE_URL", secured.database.url())
        .env("DATABASE_CA_FILE", "tls/ca.pem")
        .start();
    let before = service.ready_workers(2);
    ready(&service);
    let another = Authority::new("another");
    secured.present(&another.sign(&HOSTS));
    let why = service.ask_usher("POST", "/reload").expect(409)["detail"].clone();
    assert!(why.as_str().unwrap().contains("not ready within 2s"), "{why}");
    assert_eq!(service.ready_workers(2), before);
    fs::write(secured.folder.path().join("ca.pem"), &another.certificate).unwrap();
    service.ask_usher("POST", "/reload").expect(200);
    assert_eq!(service.get("/readyz").status, 200);
}
