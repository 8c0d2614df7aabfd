//! The plots of the examples: round ticks, nothing clipped, labels that do not collide.

#![allow(clippy::unwrap_used, dead_code)]

use std::path::PathBuf;

#[path = "../examples/plot/curves.rs"]
mod curves;
#[path = "../examples/plot/heat.rs"]
mod heat;
#[path = "../examples/plot/mod.rs"]
mod plot;
#[path = "../examples/plot/scatter.rs"]
mod scatter;

use curves::{Curve, Curves};
use heat::Head;
use plot::Axis;
use scatter::Scatter;

/// Draws into a file and returns the SVG text.
fn drawn(draw: impl FnOnce(&PathBuf)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plot.svg");
    draw(&path);
    std::fs::read_to_string(path).unwrap()
}

/// The values of an attribute in elements that contain `mark`.
fn values(svg: &str, mark: &str, attribute: &str) -> Vec<f64> {
    let value = |line: &str| line.split_once(&format!(" {attribute}=\"")).unwrap().1.split('"').next().unwrap().parse();
    svg.lines().filter(|line| line.contains(mark)).map(|line| value(line).unwrap()).collect()
}

#[test]
fn ticks_are_round_and_few() {
    for (values, expected) in [
        ([0.0, 2000.0], "0 500 1,000 1,500 2,000"),
        ([0.0, 200_000.0], "0 50,000 100,000 150,000 200,000"),
        ([1.38, 4.2], "1.5 2.0 2.5 3.0 3.5 4.0"),
        ([-0.7, 0.7], "−0.6 −0.4 −0.2 0.0 0.2 0.4 0.6"),
        ([0.012, 0.016], "0.012 0.013 0.014 0.015 0.016"),
    ] {
        let axis = Axis::new(values, [0.0, 100.0], 6.0);
        let labels: Vec<String> = axis.ticks.iter().map(|&tick| axis.label(tick)).collect();
        assert_eq!(labels.join(" "), expected);
    }
}

#[test]
fn curves_stay_on_the_page() {
    let points: Vec<(f64, f64)> = (1..=5000).map(|i| (f64::from(i), 3.0 + f64::from(i).sin())).collect();
    let cases = [
        vec![],
        vec![(1.0, 2.0)],
        vec![(1.0, f64::NAN), (2.0, 1.0), (3.0, f64::INFINITY)],
        vec![(10.0, 5.0), (20.0, 5.0)],
        points[..500].to_vec(),
        points,
    ];
    for points in cases {
        let named = |colour| Curve { name: "a < b & c", colour, points: points.clone() };
        let curves =
            Curves { title: "t", subtitle: "s", axes: ["x", "y"], curves: vec![named("blue"), named("orange")] };
        let svg = drawn(|path| curves.save(path).unwrap());
        assert!(!svg.contains("NaN") && !svg.contains("inf") && !svg.contains("a < b"), "{svg}");
        for line in svg.lines().filter(|line| line.contains("\"line\"") || line.contains("fill-opacity")) {
            let path = line.split_once(" d=\"M").unwrap().1.split(['"', 'z']).next().unwrap();
            for point in path.split('L') {
                let (x, y) = point.split_once(' ').unwrap();
                let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
                assert!((70.0..=860.0).contains(&x) && (104.0..=438.0).contains(&y), "{x} {y}");
            }
        }
        // The two labels are a line apart though the curves end together.
        let labels = values(&svg, "class=\"label\"", "y");
        assert!(labels.windows(2).all(|pair| (pair[0] - pair[1]).abs() >= 13.0), "{labels:?}");
    }
}

#[test]
fn names_of_points_do_not_collide() {
    let names: Vec<String> = (0..60).map(|i| format!("word number {i}")).collect();
    // A dense spiral, with several points in one place.
    let point = |i: usize| ((i / 2) as f64 * 0.7).sin_cos();
    let points: Vec<(f64, f64)> = (0..60).map(|i| (point(i).0 * i as f64, point(i).1 * i as f64)).collect();
    let scatter = Scatter { title: "t", subtitle: "s", axes: ["x", "y"], points, names: &names };
    let svg = drawn(|path| scatter.save(path).unwrap());
    assert_eq!(values(&svg, "<circle", "cx").len(), 60);
    let (x, y) = (values(&svg, "class=\"word\"", "x"), values(&svg, "class=\"word\"", "y"));
    assert!(x.len() > 50, "{} of 60 points have a name", x.len());
    let width = plot::text_width("word number 10", 14.0) - 10.0;
    for i in 0..x.len() {
        assert!(x[i] - width / 2.0 > 0.0 && x[i] + width / 2.0 < 900.0);
        for j in 0..i {
            assert!((x[i] - x[j]).abs() >= width || (y[i] - y[j]).abs() >= 14.0, "{i} {j}");
        }
    }
}

#[test]
fn attention_has_its_tokens_layers_heads_and_scale() {
    let tokens: Vec<String> = ["<s>", "a\u{1b}b", "\"c\""].map(String::from).into();
    let probs = [1.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.2, 0.3, 0.5];
    let head = |layer, head| Head { layer, head, path: "h.0", probs: &probs };
    let svg = drawn(|path| heat::save_head(&head(3, 5), &tokens, path).unwrap());
    assert!(svg.contains("Attention of layer 3, head 5") && svg.contains("probability"));
    assert_eq!(svg.matches(">&lt;s&gt;</text>").count(), 2, "a token on both axes");
    assert!(svg.contains("<title>a b → &lt;s&gt;: 0.500</title>"), "{svg}");
    assert!(svg.chars().all(|c| c == '\n' || !c.is_control()));
    let rows: Vec<Vec<Head<'_>>> = (0..2).map(|layer| (0..3).map(|i| head(layer, i)).collect()).collect();
    let svg = drawn(|path| heat::save_map(&rows, &tokens, path).unwrap());
    for text in ["layer 0<", "layer 1<", "head 0<", "head 2<", "probability<"] {
        assert!(svg.contains(text), "{text}");
    }
    // Many tokens are numbered.
    let tokens = vec!["x".to_string(); 200];
    let probs = vec![1.0 / 200.0; 200 * 200];
    let svg =
        drawn(|path| heat::save_head(&Head { layer: 0, head: 0, path: "h", probs: &probs }, &tokens, path).unwrap());
    assert!(svg.contains(">190</text>") && svg.len() < 50_000, "{}", svg.len());
}
