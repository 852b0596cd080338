//! The users API through a real client, in each way that the module runs.

use harness::{Reply, Service};
use serde_json::{Value, json};

/// Makes each of these a test of the module in every way that it is run, on each store.
macro_rules! everywhere {
    ($($test:ident),*) => {
        everywhere!(embedded_compiled, Aot, None; $($test),*);
        everywhere!(embedded_interpreted, Interpreter, None; $($test),*);
        everywhere!(embedded_oldest_compiled, OldestAot, None; $($test),*);
        everywhere!(embedded_oldest_interpreted, OldestInterpreter, None; $($test),*);
        everywhere!(mariadb_compiled, Aot, Some(Flavour::MariaDb); $($test),*);
        everywhere!(mariadb_interpreted, Interpreter, Some(Flavour::MariaDb); $($test),*);
        everywhere!(mariadb_oldest_compiled, OldestAot, Some(Flavour::MariaDb); $($test),*);
        everywhere!(mariadb_oldest_interpreted, OldestInterpreter, Some(Flavour::MariaDb); $($test),*);
        everywhere!(mysql_compiled, Aot, Some(Flavour::MySql); $($test),*);
        everywhere!(mysql_oldest_interpreted, OldestInterpreter, Some(Flavour::MySql); $($test),*);
    };
    ($place:ident, $runtime:ident, $server:expr; $($test:ident),*) => {
        mod $place {
            use harness::{Database, Flavour, Runtime, Service};

            $(#[test]
            fn $test() {
                let server: Option<Flavour> = $server;
                let database = server.map(Database::start_of);
                let builder = Service::builder(Runtime::$runtime);
                let builder = match &database {
                    Some(database) => builder.env("DATABASE_URL", database.url()),
                    None => builder,
                };
                super::$test(&builder.start());
            })*
        }
    };
}
everywhere!(a_user_lives_and_dies, pages_follow_their_tokens);

pub fn a_user_lives_and_dies(service: &Service) {
    let created = service.send_json("POST", "/api/users", r#"{"name":" Ada ","email":"Ada@Example.org"}"#);
    let user = created.expect(201);
    assert_eq!(created.header("location"), Some("/api/users/1"));
    assert_eq!((&user["id"], &user["name"], &user["active"]), (&json!(1), &json!("Ada"), &json!(true)));
    assert_eq!(service.get("/api/users/1").expect(200), user);

    let duplicate = service.send_json("POST", "/api/users", r#"{"name":"x","email":"ada@example.ORG"}"#);
    assert_eq!(duplicate.problem(409).0, "duplicate-email");

    let patch =
        |body| service.send("PATCH", "/api/users/1", &[("content-type", "application/merge-patch+json")], Some(body));
    assert_eq!(patch("{}").expect(200), user);
    let patched = patch(r#"{"active":false}"#).expect(200);
    assert_eq!((&patched["active"], &patched["name"]), (&json!(false), &json!("Ada")));
    assert!(patched["updated_at"].as_str() > user["updated_at"].as_str());

    let replaced =
        service.send_json("PUT", "/api/users/1", r#"{"name":"Ada L","email":"ada@example.org","active":true}"#);
    assert_eq!(replaced.expect(200)["name"], "Ada L");

    let deleted = service.send("DELETE", "/api/users/1", &[], None);
    assert_eq!((deleted.status, deleted.body.as_str()), (204, ""));
    assert_eq!(service.get("/api/users/1").problem(404).0, "no-such-user");
}

fn pages_follow_their_tokens(service: &Service) {
    for n in 1..=7 {
        service.add_user("n", &format!("u{n}@x.org"));
    }
    let mut path = "/api/users?page_size=3".to_owned();
    let mut seen = Vec::new();
    loop {
        let reply = service.get(&path);
        let page = reply.expect(200);
        seen.extend(page["users"].as_array().unwrap().iter().map(|user| user["id"].clone()));
        let Some(next) = next_path(&reply) else {
            assert_eq!(page.get("next_page_token"), None);
            break;
        };
        assert!(next.contains(page["next_page_token"].as_str().unwrap()), "{next}");
        path = next;
    }
    assert_eq!(Value::from(seen), json!([1, 2, 3, 4, 5, 6, 7]));
}

fn next_path(reply: &Reply) -> Option<String> {
    let link = reply.header("link")?;
    let path = link.strip_prefix('<')?.strip_suffix(">; rel=\"next\"")?;
    Some(path.to_owned())
}
