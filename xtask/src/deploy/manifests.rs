//! Manifests as they would be applied, and how to look into them.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// All objects of a rendered file.
pub struct Manifests(Vec<Object>);

/// One of them.
pub struct Object(Value);

impl Manifests {
    /// Reads the documents of a YAML file.
    pub fn parse(text: &str) -> Result<Self> {
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("the manifests are no YAML")?;
        let objects: Vec<Object> = documents.into_iter().filter(|document| !document.is_null()).map(Object).collect();
        ensure!(!objects.is_empty(), "there are no manifests");
        for object in &objects {
            ensure!(object.text("/kind").is_some(), "a manifest has no kind");
        }
        Ok(Self(objects))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Those of a kind.
    pub fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Object> {
        self.0.iter().filter(move |object| object.text("/kind") == Some(kind))
    }

    /// The one of that kind and name.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Object> {
        self.of_kind(kind).find(|object| object.name() == name)
    }

    /// All that run pods, each with the place of its pods' specification.
    pub fn workloads(&self) -> impl Iterator<Item = (&Object, Object)> {
        self.0.iter().filter_map(|object| {
            let place = match object.text("/kind")? {
                "Pod" => "",
                "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => "/spec/template",
                _ => return None,
            };
            Some((object, Object(object.0.pointer(place)?.clone())))
        })
    }
}

impl Object {
    /// Its kind and name, as people say it.
    pub fn title(&self) -> String {
        format!("{} {}", self.text("/kind").unwrap_or("?"), self.name())
    }

    /// Its name; empty if it has none.
    pub fn name(&self) -> &str {
        self.text("/metadata/name").unwrap_or_default()
    }

    /// What is at a place (RFC 6901).
    pub fn at(&self, place: &str) -> Option<&Value> {
        self.0.pointer(place)
    }

    /// The text at a place.
    pub fn text(&self, place: &str) -> Option<&str> {
        self.at(place)?.as_str()
    }

    /// The whole number at a place.
    pub fn number(&self, place: &str) -> Option<u64> {
        self.at(place)?.as_u64()
    }

    /// The switch at a place.
    pub fn switch(&self, place: &str) -> Option<bool> {
        self.at(place)?.as_bool()
    }

    /// What is listed at a place; nothing if there is no list.
    pub fn list(&self, place: &str) -> Vec<Self> {
        self.at(place).and_then(Value::as_array).into_iter().flatten().cloned().map(Self).collect()
    }

    /// Whether a name is a member of any object in it, however deep.
    pub fn mentions(&self, name: &str) -> bool {
        mentions(&self.0, name)
    }
}

impl From<Value> for Object {
    fn from(value: Value) -> Self {
        Self(value)
    }
}

fn mentions(value: &Value, name: &str) -> bool {
    match value {
        Value::Object(members) => members.contains_key(name) || members.values().any(|member| mentions(member, name)),
        Value::Array(items) => items.iter().any(|item| mentions(item, name)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_objects_with_kinds() {
        let manifests =
            Manifests::parse("kind: Pod\nmetadata: {name: a}\n---\nkind: Service\nmetadata: {name: b}\n").unwrap();
        assert_eq!(manifests.len(), 2);
        assert_eq!(manifests.find("Service", "b").unwrap().title(), "Service b");
        assert!(manifests.find("Service", "a").is_none());
        for wrong in ["", "metadata: {}", "kind: [", "- kind: Pod"] {
            assert!(Manifests::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_found_however_deep() {
        let manifests = Manifests::parse("kind: Pod\nspec: {containers: [{livenessProbe: {exec: {}}}]}\n").unwrap();
        let (_, pod) = manifests.workloads().next().unwrap();
        assert!(pod.mentions("exec") && !pod.mentions("sleep"));
    }
}
