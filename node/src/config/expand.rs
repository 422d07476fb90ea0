//! References to environment variables in a server's definition, so that secrets need not stand in the file.

/// Where variables are looked up: the process's environment, or a test's table.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Replaces `${NAME}`, `${env:NAME}` and `${NAME:-default}`; `$$` and a lone `$` stay as they are.
///
/// The problem never quotes a value, only names: values are secrets.
pub fn expand(text: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        expanded.push_str(&rest[..start]);
        let body = &rest[start + 2..];
        let end = body.find('}').ok_or("has a `${` without its `}`")?;
        expanded.push_str(&resolve(&body[..end], lookup)?);
        rest = &body[end + 1..];
    }
    expanded.push_str(rest);
    Ok(expanded)
}

fn resolve(reference: &str, lookup: Lookup<'_>) -> Result<String, String> {
    let reference = reference.strip_prefix("env:").unwrap_or(reference);
    let (name, default) = match reference.split_once(":-") {
        Some((name, default)) => (name, Some(default)),
        None => (reference, None),
    };
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(format!("refers to ${{{name}}}, which only the program that wrote it can fill in"));
    }
    match (lookup(name), default) {
        (Some(value), _) => Ok(value),
        (None, Some(default)) => Ok(default.to_owned()),
        (None, None) => Err(format!("refers to the environment variable {name}, which is not set")),
    }
}

/// Looks variables up in this process's environment.
pub fn from_environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_replaced_or_refused_by_name() {
        let lookup = |name: &str| (name == "TOKEN").then(|| "s3cret".to_owned());
        for (text, expected) in [
            ("plain $HOME $$", Ok("plain $HOME $$")),
            ("Bearer ${TOKEN}", Ok("Bearer s3cret")),
            ("${env:TOKEN}${TOKEN}", Ok("s3crets3cret")),
            ("${NONE:-x y}", Ok("x y")),
            ("${NONE:-}", Ok("")),
            ("${NONE}", Err("NONE, which is not set")),
            ("${input:key}", Err("${input:key}, which only the program")),
            ("${}", Err("which only the program")),
            ("a ${TOKEN", Err("without its `}`")),
        ] {
            match (expand(text, &lookup), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{text}: {got}"),
                (got, expected) => panic!("{text}: {got:?}, expected {expected:?}"),
            }
        }
    }
}
