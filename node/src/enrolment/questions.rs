//! Questions to the operator that wait for an answer from the command line: are the words the same?

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use data_encoding::HEXLOWER;
use tokio::sync::oneshot;

/// Questions that wait at once: those of all enrolments that may be under way. One more is answered with no.
pub(crate) const QUESTIONS_MAX: usize = 32;

type Waiting = BTreeMap<String, oneshot::Sender<bool>>;

/// The questions that wait. Cheap to clone; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Questions(Arc<Mutex<Waiting>>);

/// A question that was asked. Dropping it takes it back.
#[derive(Debug)]
pub(crate) struct Asked {
    /// By which name to answer it.
    pub(crate) id: String,
    answer: oneshot::Receiver<bool>,
    questions: Questions,
}

impl Questions {
    /// Asks; `None` when too many wait, or the system has no randomness to name it by.
    pub(crate) fn ask(&self) -> Option<Asked> {
        let mut id = [0; 8];
        getrandom::fill(&mut id).ok()?;
        let (id, (sender, answer)) = (HEXLOWER.encode(&id), oneshot::channel());
        let mut waiting = self.lock();
        if waiting.len() >= QUESTIONS_MAX {
            return None;
        }
        waiting.insert(id.clone(), sender);
        Some(Asked { id, answer, questions: self.clone() })
    }

    /// Answers. Returns whether somebody was still waiting for it.
    pub(crate) fn answer(&self, id: &str, yes: bool) -> bool {
        let asked = self.lock().remove(id);
        asked.is_some_and(|asked| asked.send(yes).is_ok())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asked {
    /// The answer; no when nobody can give one any more. Cancel-safe.
    pub(crate) async fn answer(&mut self) -> bool {
        (&mut self.answer).await.unwrap_or(false)
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.questions.lock().remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_reaches_its_question_once() {
        let questions = Questions::default();
        let (mut yes, mut no) = (questions.ask().unwrap(), questions.ask().unwrap());
        assert!(questions.answer(&no.id.clone(), false) && questions.answer(&yes.id.clone(), true));
        assert_eq!((yes.answer().await, no.answer().await), (true, false));
        assert!(!questions.answer(&yes.id, true), "it was answered");
        let taken_back = questions.ask().unwrap().id.clone();
        assert!(!questions.answer(&taken_back, true));
    }

    #[test]
    fn questions_are_bounded() {
        let questions = Questions::default();
        let asked: Vec<_> = std::iter::from_fn(|| questions.ask()).take(QUESTIONS_MAX + 1).collect();
        assert_eq!(asked.len(), QUESTIONS_MAX);
        drop(asked);
        assert!(questions.ask().is_some());
    }
}
