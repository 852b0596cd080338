//! What every store must do, written once: `store_suite!` makes each of these a test of a store.

use super::{PageQuery, Store, StoreError};
use crate::user::{Email, Name, NewUser, UserId, UserPatch};

/// The tests of one store. `$open`, which may await, gives a new, empty store and whatever must
/// outlive it.
macro_rules! store_suite {
    ($open:expr) => {
        store_suite!($open;
            a_user_is_found_as_it_was_created, ids_grow_and_are_never_given_twice,
            addresses_that_compare_equal_are_duplicates, a_changed_address_is_free_again,
            an_update_that_changes_nothing_keeps_its_time, what_is_not_there_is_not_found,
            pages_follow_ids_whatever_is_deleted_meanwhile, filters_combine, awkward_values_come_back_exactly);
    };
    ($open:expr; $($test:ident),*) => {$(
        #[test]
        fn $test() {
            crate::store::suite::block_on(async {
                let (store, _guard) = $open;
                crate::store::suite::$test(store).await;
            });
        }
    )*};
}
pub(super) use store_suite;

/// Runs a future as the service does.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn new_user(name: &str, email: &str, active: bool) -> NewUser {
    NewUser { name: Name::parse(name).unwrap(), email: Email::parse(email).unwrap(), active }
}

fn email_patch(email: &str) -> UserPatch {
    UserPatch { email: Some(Email::parse(email).unwrap()), ..UserPatch::default() }
}

async fn ids(store: &Store, query: PageQuery) -> (Vec<u64>, bool) {
    let page = store.page(&query).await.unwrap();
    (page.users.iter().map(|user| user.id.get()).collect(), page.more)
}

pub async fn a_user_is_found_as_it_was_created(store: Store) {
    let created = store.create(new_user("Ada", "Ada@Example.org", false)).await.unwrap();
    assert_eq!(created.created_at, created.updated_at);
    assert_eq!(store.get(created.id).await.unwrap(), created);
    store.check().await.unwrap();
}

pub async fn ids_grow_and_are_never_given_twice(store: Store) {
    let first = store.create(new_user("a", "a@x.org", true)).await.unwrap().id;
    let second = store.create(new_user("b", "b@x.org", true)).await.unwrap().id;
    assert!(second > first);
    store.delete(second).await.unwrap();
    let third = store.create(new_user("b", "b@x.org", true)).await.unwrap().id;
    assert!(third > second);
}

pub async fn addresses_that_compare_equal_are_duplicates(store: Store) {
    store.create(new_user("a", "Jose\u{301}@x.org", true)).await.unwrap();
    let other = store.create(new_user("b", "jose@x.org", true)).await.unwrap();
    let again = store.create(new_user("c", "JOSÉ@X.ORG", true)).await;
    assert!(matches!(again, Err(StoreError::DuplicateEmail)));
    let moved = store.update(other.id, email_patch("josé@x.org")).await;
    assert!(matches!(moved, Err(StoreError::DuplicateEmail)));
    assert_eq!(store.get(other.id).await.unwrap(), other);
    assert_eq!(ids(&store, PageQuery { limit: 9, ..PageQuery::default() }).await.0.len(), 2);
}

pub async fn a_changed_address_is_free_again(store: Store) {
    let user = store.create(new_user("a", "a@x.org", true)).await.unwrap();
    let own = store.update(user.id, email_patch("A@x.org")).await.unwrap();
    assert_eq!(own.email.as_str(), "A@x.org");
    store.update(user.id, email_patch("b@x.org")).await.unwrap();
    let next = store.create(new_user("a", "a@x.org", true)).await.unwrap();
    store.delete(next.id).await.unwrap();
    store.create(new_user("a", "a@x.org", true)).await.unwrap();
}

pub async fn an_update_that_changes_nothing_keeps_its_time(store: Store) {
    let user = store.create(new_user("a", "a@x.org", true)).await.unwrap();
    let same = store.update(user.id, new_user("a", "a@x.org", true).into()).await.unwrap();
    assert_eq!(same, user);
    let other = store.update(user.id, new_user("b", "a@x.org", true).into()).await.unwrap();
    assert!(other.updated_at > user.updated_at);
    assert_eq!(other.created_at, user.created_at);
    assert_eq!(store.get(user.id).await.unwrap(), other);
}

pub async fn what_is_not_there_is_not_found(store: Store) {
    let id = UserId::new(UserId::MAX).unwrap();
    assert!(matches!(store.get(id).await, Err(StoreError::NotFound)));
    assert!(matches!(store.update(id, UserPatch::default()).await, Err(StoreError::NotFound)));
    assert!(matches!(store.delete(id).await, Err(StoreError::NotFound)));
    let user = store.create(new_user("a", "a@x.org", true)).await.unwrap();
    store.delete(user.id).await.unwrap();
    assert!(matches!(store.get(user.id).await, Err(StoreError::NotFound)));
}

pub async fn pages_follow_ids_whatever_is_deleted_meanwhile(store: Store) {
    let mut all = Vec::new();
    for n in 0..10 {
        all.push(store.create(new_user("n", &format!("u{n}@x.org"), true)).await.unwrap().id);
    }
    let at = |i: usize| all[i].get();
    let page = |after, limit| PageQuery { after, limit, ..PageQuery::default() };
    assert_eq!(ids(&store, page(None, 4)).await, ((0..4).map(at).collect(), true));
    // Neither the last user of a page nor one before it has to be there for the next page.
    store.delete(all[3]).await.unwrap();
    store.delete(all[0]).await.unwrap();
    store.delete(all[5]).await.unwrap();
    assert_eq!(ids(&store, page(Some(all[3]), 3)).await, (vec![at(4), at(6), at(7)], true));
    assert_eq!(ids(&store, page(Some(all[7]), 2)).await, (vec![at(8), at(9)], false));
    assert_eq!(ids(&store, page(UserId::new(UserId::MAX), 2)).await, (vec![], false));
}

pub async fn filters_combine(store: Store) {
    let on = store.create(new_user("on", "on@x.org", true)).await.unwrap().id;
    let off = store.create(new_user("off", "off@x.org", false)).await.unwrap().id;
    let late = store.create(new_user("late", "late@x.org", false)).await.unwrap().id;
    let query = |active, email: Option<&str>| PageQuery {
        limit: 10,
        active,
        email: email.map(|e| Email::parse(e).unwrap()),
        ..PageQuery::default()
    };
    assert_eq!(ids(&store, query(Some(true), None)).await.0, [on.get()]);
    assert_eq!(ids(&store, query(Some(false), None)).await.0, [off.get(), late.get()]);
    assert_eq!(ids(&store, query(None, Some("OFF@X.org"))).await.0, [off.get()]);
    assert_eq!(ids(&store, query(Some(true), Some("off@x.org"))).await.0, [0; 0]);
    assert_eq!(ids(&store, query(None, Some("nobody@x.org"))).await.0, [0; 0]);
    store.update(off, UserPatch { active: Some(true), ..UserPatch::default() }).await.unwrap();
    assert_eq!(ids(&store, query(Some(true), None)).await.0, [on.get(), off.get()]);
    store.delete(late).await.unwrap();
    assert_eq!(ids(&store, query(Some(false), None)).await.0, [0; 0]);
}

pub async fn awkward_values_come_back_exactly(store: Store) {
    for (n, name) in ["a\0b", "'; DROP TABLE users; --", "\"\\", "e\u{301}", &"🦀".repeat(200)].iter().enumerate() {
        let email = format!("\"q{n}'\"@x.org");
        let created = store.create(new_user(name, &email, true)).await.unwrap();
        let read = store.get(created.id).await.unwrap();
        assert_eq!((read.name.as_str(), read.email.as_str()), (*name, email.as_str()));
    }
}
