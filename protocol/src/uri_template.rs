//! Which URI templates a URI can have come from: RFC 6570 read backwards, as far as routing needs it.
//!
//! A template is a row of literal texts and expressions. What an expression may have stood for is taken widely, because
//! the server that wrote the template has the last word: a simple one (`{id}`) stands for one or more characters without
//! a slash, `{+path}` and `{#part}` for one or more characters of any kind, every other operator for anything or nothing.
//! Two templates that both fit are ranked by [`UriTemplate::literals`]: the one that says more wins.

/// A template that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UriTemplate {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Expression { may_be_empty: bool, slashes: bool },
}

impl UriTemplate {
    /// Reads a template; `None` when its braces do not pair.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some((literal, after)) = rest.split_once('{') {
            let (expression, after) = after.split_once('}')?;
            push_literal(&mut parts, literal)?;
            parts.push(expression_part(expression)?);
            rest = after;
        }
        push_literal(&mut parts, rest)?;
        Some(Self { parts })
    }

    /// How many bytes the template says itself.
    pub fn literals(&self) -> usize {
        let bytes = self.parts.iter().map(|part| match part {
            Part::Literal(text) => text.len(),
            Part::Expression { .. } => 0,
        });
        bytes.sum()
    }

    /// Whether `uri` can be an expansion of the template. Takes time in proportion to the lengths of both.
    pub fn matches(&self, uri: &str) -> bool {
        let uri = uri.as_bytes();
        // Where in the URI the parts so far may have ended.
        let mut ends = vec![false; uri.len() + 1];
        ends[0] = true;
        for part in &self.parts {
            ends = match part {
                Part::Literal(text) => after_literal(&ends, uri, text.as_bytes()),
                Part::Expression { may_be_empty, slashes } => {
                    after_expression(&ends, uri, *may_be_empty, *slashes)
                }
            };
        }
        ends[uri.len()]
    }
}

/// A closing brace without an opening one makes the template unreadable.
fn push_literal(parts: &mut Vec<Part>, literal: &str) -> Option<()> {
    if literal.contains('}') {
        return None;
    }
    if !literal.is_empty() {
        parts.push(Part::Literal(literal.to_owned()));
    }
    Some(())
}

fn expression_part(expression: &str) -> Option<Part> {
    if expression.contains('{') {
        return None;
    }
    Some(match expression.bytes().next()? {
        b'+' | b'#' => Part::Expression { may_be_empty: false, slashes: true },
        b'.' | b'/' | b';' | b'?' | b'&' => Part::Expression { may_be_empty: true, slashes: true },
        _ => Part::Expression { may_be_empty: false, slashes: false },
    })
}

fn after_literal(starts: &[bool], uri: &[u8], literal: &[u8]) -> Vec<bool> {
    let mut ends = vec![false; starts.len()];
    for (at, _) in starts.iter().enumerate().filter(|(_, start)| **start) {
        if uri.get(at..).is_some_and(|rest| rest.starts_with(literal)) {
            ends[at + literal.len()] = true;
        }
    }
    ends
}

fn after_expression(starts: &[bool], uri: &[u8], may_be_empty: bool, slashes: bool) -> Vec<bool> {
    let mut ends = vec![false; starts.len()];
    // Whether an expansion that began earlier is still going on.
    let mut open = false;
    for at in 0..starts.len() {
        ends[at] = open || (may_be_empty && starts[at]);
        open |= starts[at];
        open &= slashes || uri.get(at) != Some(&b'/');
    }
    ends
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(template: &str, uri: &str) -> bool {
        UriTemplate::parse(template).unwrap().matches(uri)
    }

    #[test]
    fn a_uri_is_found_again_in_its_template() {
        for (template, uri, expected) in [
            ("test://template/{id}/data", "test://template/7/data", true),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://template/{id}/data", "test://template/a/b/data", false),
            ("test://template/{id}/data", "test://template/7/data/", false),
            ("file:///{+path}", "file:///a/b/c.txt", true),
            ("file:///{+path}", "file:///", false),
            ("db://{table}{?limit,after}", "db://users", true),
            ("db://{table}{?limit,after}", "db://users?limit=3", true),
            ("db://{table}{?limit,after}", "db:///users", false),
            ("x:{a}-{b}", "x:1-2-3", true),
            ("x:{a}-{b}", "x:1-", false),
            ("plain://uri", "plain://uri", true),
            ("plain://uri", "plain://urii", false),
            ("{all}", "anything", true),
            ("{all}", "", false),
        ] {
            assert_eq!(fits(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in ["a{", "a}", "{}", "{a{b}}", "}{"] {
            assert_eq!(UriTemplate::parse(text), None, "{text}");
        }
    }

    #[test]
    fn hostile_templates_take_no_more_than_their_length() {
        let template = UriTemplate::parse(&"{a}x".repeat(200)).unwrap();
        assert!(!template.matches(&"x".repeat(399)));
        assert!(template.matches(&"yx".repeat(200)));
        assert_eq!(template.literals(), 200);
    }

    proptest::proptest! {
        #[test]
        fn every_simple_expansion_is_recognised(texts in proptest::collection::vec(("[a-z:/]{0,6}", "[a-z0-9.]{1,6}"), 0..6)) {
            let template: String = texts.iter().map(|(literal, _)| format!("{literal}{{x}}")).collect();
            let uri: String = texts.iter().map(|(literal, value)| format!("{literal}{value}")).collect();
            proptest::prop_assert!(fits(&template, &uri));
        }
    }
}
