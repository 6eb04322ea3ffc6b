#include "check.h"
#include "plan/node.h"

using namespace page4d::plugin;

namespace {

using Types = std::vector<std::string_view>;

const Node kBiased(Op::kBiasedAttention, {});
const Node kEpipolar(Op::kBiasedAttention, {{"epipolar_band", 2.5}, {"epipolar_penalty", 4}});
const Node kRows(Op::kBiasedAttention, {{"row_period", 8}, {"row_leading", 5}, {"row_gain", 0.5}, {"scale", 3}});
const Node kSegment(Op::kSegmentAttention, {{"epipolar_band", 2.5}});

void fields() {
  CHECK(kBiased.fields().empty());
  CHECK(kSegment.fields().empty());  // no kernel reads it there
  CHECK((kRows.fields() ==
         std::map<Field, double>{{Field::kRowPeriod, 8}, {Field::kRowLeading, 5}, {Field::kRowGain, 0.5}}));
  CHECK(refusal([] { Node(Op::kBiasedAttention, {{"row_gain", 1}}); }) == "BiasedAttention with half of an option");
  try {
    Node(Op::kBiasedAttention, {{"row_gain", 1}, {"epipolar_penalty", 1}, {"epipolar_band", 1}});
  } catch (const Error& error) {
    CHECK(error.what() ==
          std::string("BiasedAttention with half of an option\n  got:     epipolar_band, epipolar_penalty, row_gain\n"
                      "  allowed: all or none of row_period, row_leading, row_gain"));
  }
  CHECK(refusal([] { Node(Op::kBiasedAttention, {{"row_period", 1e12}, {"row_leading", 1}, {"row_gain", 1}}); }) ==
        "row_period of BiasedAttention is no count of rows");
}

void modes() {
  CHECK(kBiased.mode(3) == Mode::kDense);
  CHECK(kBiased.mode(4) == Mode::kBiased);
  CHECK(kEpipolar.mode(6) == Mode::kEpipolar);
  CHECK(kRows.mode(4) == Mode::kRows);
  CHECK(kSegment.mode(6) == Mode::kSegments);
  CHECK(kSegment.mode(7) == Mode::kSegmentsBiased);
  for (const Node& node : {kBiased, kEpipolar, kSegment})
    CHECK(refusal([&] { node.mode(5); }).find("wrong number of inputs") != std::string::npos);
}

void types() {
  for (std::string_view own : {"float16", "bfloat16"}) {
    const Types dense = {own, own, own, own};
    for (size_t i = 0; i < dense.size(); ++i) CHECK(kBiased.accepts(i, dense));
    CHECK(!kBiased.accepts(1, {own, "float32", "", ""}));
    CHECK(!kBiased.accepts(3, {own, own, own, "float32"}));
    CHECK(kEpipolar.accepts(4, {own, own, own, own, "float32", "", ""}));
    CHECK(!kEpipolar.accepts(5, {own, own, own, own, "float32", own, ""}));
    CHECK(kSegment.accepts(5, {own, own, own, own, "int32", "int32", "", ""}));
    CHECK(!kSegment.accepts(4, {own, own, own, own, "", "", "", ""}));
    CHECK(kSegment.accepts(6, {own, own, own, own, "int32", "int32", own, ""}));
    CHECK(kSegment.accepts(7, {own, own, own, own, "int32", "int32", own, own}));
  }
  CHECK(!kBiased.accepts(0, {"float32", "", "", ""}));
  CHECK(!kBiased.accepts(1, {"float16", "bfloat16", "", ""}));
  CHECK(!kBiased.accepts(7, Types(9, "float16")));  // more inputs than the op has
}

void shapes() {
  const Node::Dims q = {2, 3, 24, 64}, k = {2, 3, 40, 64}, bias = {2, 40};
  Shape expected{};
  expected.mode = Mode::kBiased, expected.dtype = Dtype::kBfloat16;
  expected.Z = 2, expected.A = 3, expected.n = 24, expected.m = 40;
  CHECK(kBiased.shape({q, k, k, bias}, Dtype::kBfloat16) == expected);
  expected.mode = Mode::kRows, expected.rows = BiasedRows{8, 5, 0.5};
  CHECK(kRows.shape({q, k, k, bias}, Dtype::kBfloat16) == expected);
  expected.rows.reset();
  expected.mode = Mode::kSegmentsBiased, expected.groups = 4, expected.segments = 7;
  CHECK(kSegment.shape({q, k, k, bias, {5}, {7, 2}, {3, 7}}, Dtype::kBfloat16) == expected);
  expected.mode = Mode::kEpipolar, expected.m = 24, expected.groups = 2, expected.segments = 0, expected.band = 2.5,
  expected.penalty = 4;
  CHECK(kEpipolar.shape({q, q, q, {2, 24}, {2, 2, 3, 3}, {12, 3}}, Dtype::kBfloat16) == expected);

  const auto refused = [](const Node& node, const std::vector<Node::Dims>& shapes) {
    return refusal([&] { node.shape(shapes, Dtype::kFloat16); });
  };
  CHECK(refused(kBiased, {{24, 64}, k, k}) == "q and k of an attention have four axes");
  CHECK(refused(kBiased, {q, k, q}) == "v of BiasedAttention does not fit q [2, 3, 24, 64] and k [2, 3, 40, 64]");
  CHECK(refused(kBiased, {q, {2, 4, 40, 64}, k}) ==
        "k of BiasedAttention does not fit q [2, 3, 24, 64] and k [2, 4, 40, 64]");
  CHECK(refused(kBiased, {q, k, k, {2, 1, 40}}).substr(0, 8) == "key_bias");
  CHECK(refused(kEpipolar, {q, q, q, {2, 24}, {}, {12, 3}}).substr(0, 11) == "fundamental");
  CHECK(refused(kEpipolar, {q, q, q, {2, 24}, {0, 0, 3, 3}, {12, 3}}).substr(0, 11) == "fundamental");
  CHECK(refused(kEpipolar, {q, q, q, {2, 24}, {2, 2, 3, 3}, {24, 3}}).substr(0, 7) == "centres");
  CHECK(refused(kSegment, {q, k, k, bias, {5}, {7, 3}}).substr(0, 3) == "seg");
  CHECK(refused(kSegment, {q, k, k, bias, {}, {7, 2}}).substr(0, 7) == "seg_ptr");
}

}  // namespace

int main() {
  fields();
  modes();
  types();
  shapes();
}
