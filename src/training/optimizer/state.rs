//! The state of an optimizer in a file.
//!
//! The file is in safetensors format. Moments have the path of their parameter with PyTorch's name
//! appended (`wte.weight.exp_avg`) and its shape; the rule and the number of steps of each
//! parameter are in the metadata, as JSON under the key `optimizer`.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Memory, Optimizer, Rule};
use crate::checkpoint::{Checkpoint, write_tensors};
use crate::error::{Error, LoadReport, MisShaped, Result};
use crate::mapped::Load;
use crate::nn::Module;

/// The key in the metadata of the file.
const KEY: &str = "optimizer";

#[derive(Serialize, Deserialize)]
struct State {
    rule: Rule,
    /// The number of steps of each parameter, by path.
    steps: BTreeMap<String, u64>,
}

impl Optimizer {
    /// Saves the state. The file is replaced atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let name = |path: String| self.rule.moment_names().iter().map(move |name| format!("{path}.{name}"));
        let names: Vec<String> = self.memory.keys().flat_map(|path| name(path.clone())).collect();
        let tensors = names.iter().map(String::as_str).zip(self.memory.values().flat_map(|memory| &memory.moments));
        let steps = self.memory.iter().map(|(path, memory)| (path.clone(), memory.steps)).collect();
        let state = serde_json::to_string(&State { rule: self.rule, steps }).expect("numbers and names are JSON");
        write_tensors(path, tensors, Some((KEY, &state)))
    }

    /// Loads the state of an optimizer with the same rule, saved for the same model. Learning rates
    /// and other settings of `self` are kept.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Format`] if the file cannot be read or was saved with another
    /// rule; [`Error::Load`] with every name that does not fit the model. After an error the
    /// optimizer is unchanged.
    pub fn load(&mut self, path: impl AsRef<Path>, model: &(impl Module + ?Sized)) -> Result<()> {
        let path = path.as_ref();
        let checkpoint = Checkpoint::open_with(path, Load::REPLACEABLE)?;
        let json = checkpoint.metadata(KEY).unwrap_or_default();
        let state: State = serde_json::from_str(json)
            .map_err(|e| Error::format(path, format!("expected the state of an optimizer in `{KEY}`: {e}")))?;
        let names = self.rule.moment_names();
        if (state.rule.name(), state.rule.moment_names()) != (self.rule.name(), names) {
            let moments = |rule: &Rule| format!("{} with moments {:?}", rule.name(), rule.moment_names());
            let reason =
                format!("expected the state of {}, found the state of {}", moments(&self.rule), moments(&state.rule));
            return Err(Error::format(path, reason));
        }
        let mut report = LoadReport::default();
        let mut memory = BTreeMap::new();
        let mut expected = 0;
        for (parameter, value) in model.parameters() {
            let Some(&steps) = state.steps.get(&parameter) else { continue };
            let mut moments = Vec::new();
            for name in names.iter().map(|name| format!("{parameter}.{name}")) {
                expected += 1;
                match checkpoint.tensor(&name) {
                    None => report.missing.push(name),
                    Some(view) if view.shape() != value.shape() => report.mis_shaped.push(MisShaped {
                        name,
                        expected: value.shape().to_vec(),
                        found: view.shape().to_vec(),
                    }),
                    Some(view) => moments.push(view.to_tensor()?),
                }
            }
            memory.insert(parameter, Memory { steps, moments });
        }
        report.unexpected = state.steps.keys().filter(|path| !memory.contains_key(*path)).cloned().collect();
        if !report.is_clean() {
            return Err(Error::Load(Box::new(report)));
        }
        if checkpoint.len() != expected {
            let reason = format!("expected {expected} moments, found {}", checkpoint.len());
            return Err(Error::format(path, reason));
        }
        self.memory = memory;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::Linear;
    use crate::random::Rng;
    use crate::tensor::Tensor;
    use crate::training::{Adam, AdamW, Sgd};

    fn model() -> Linear {
        Linear::init(3, 2, true, &mut Rng::seed(1)).unwrap()
    }

    fn steps(model: &mut Linear, optimizer: &mut Optimizer, range: std::ops::Range<u64>) {
        for step in range {
            let x = Tensor::normal(&[4, 3], 1.0, &mut Rng::seed(step));
            let y = model.forward(&x).unwrap();
            let gradients = y.mul(&y).unwrap().mean().unwrap().backward().unwrap();
            optimizer.step(model, &gradients).unwrap();
        }
    }

    #[test]
    fn five_and_five_steps_are_ten_to_the_bit() {
        let momentum = Sgd { momentum: 0.9, ..Sgd::default() };
        let rules: [Rule; 7] = [
            Sgd::default().into(),
            momentum.into(),
            Sgd { dampening: 0.3, ..momentum }.into(),
            Adam::default().into(),
            AdamW::default().into(),
            Adam { amsgrad: true, ..Adam::default() }.into(),
            AdamW { amsgrad: true, ..AdamW::default() }.into(),
        ];
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        for rule in rules {
            let (mut whole, mut optimizer) = (model(), Optimizer::new(rule).unwrap());
            steps(&mut whole, &mut optimizer, 0..10);
            let (mut halves, mut first) = (model(), Optimizer::new(rule).unwrap());
            steps(&mut halves, &mut first, 0..5);
            first.save(&path).unwrap();
            let mut second = Optimizer::new(rule).unwrap();
            second.load(&path, &halves).unwrap();
            steps(&mut halves, &mut second, 5..10);
            assert_eq!(whole.weight.tensor().to_vec(), halves.weight.tensor().to_vec(), "{rule:?}");
            assert_eq!(whole.bias.unwrap().tensor().to_vec(), halves.bias.unwrap().tensor().to_vec());
        }
    }

    #[test]
    fn another_rules_or_models_state_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("optimizer.safetensors");
        let (mut model, mut optimizer) = (model(), Optimizer::new(Adam::default()).unwrap());
        steps(&mut model, &mut optimizer, 0..1);
        optimizer.save(&path).unwrap();
        let message = Optimizer::new(AdamW::default()).unwrap().load(&path, &model).unwrap_err().to_string();
        assert!(message.contains("expected the state of AdamW"), "{message}");
        let amsgrad = Adam { amsgrad: true, ..Adam::default() };
        let message = Optimizer::new(amsgrad).unwrap().load(&path, &model).unwrap_err().to_string();
        assert!(message.contains("max_exp_avg_sq"), "{message}");
        let other = Linear::init(2, 2, false, &mut Rng::seed(1)).unwrap();
        match Optimizer::new(Adam::default()).unwrap().load(&path, &other).unwrap_err() {
            Error::Load(report) => {
                assert_eq!(report.mis_shaped.len(), 2);
                assert_eq!(report.unexpected, ["bias"]);
            }
            other => panic!("{other}"),
        }
        write_tensors(&path, [("weight.exp_avg", model.weight.tensor())], None).unwrap();
        let message = Optimizer::new(Adam::default()).unwrap().load(&path, &model).unwrap_err().to_string();
        assert!(message.contains("expected the state of an optimizer"), "{message}");
    }
}
