#include "clip/reference_view.h"

#include <Eigen/Core>
#include <algorithm>
#include <cmath>

namespace page4d {
namespace {

constexpr int kMeasures = 3;

}  // namespace

int64_t balanced_view(const float* tokens, int64_t V, int64_t C, double* scratch) noexcept {
  if (V < 3) return 0;
  using Numbers = Eigen::Map<Eigen::ArrayXd>;
  const auto token_of = [&](int64_t v) { return Eigen::Map<const Eigen::ArrayXf>(tokens + v * C, C).cast<double>(); };
  Numbers sum(scratch, C);  // of all directions: a direction's cosines with all of them at once
  Numbers cosines(scratch + C, V), lengths(cosines.data() + V, V), variances(lengths.data() + V, V);
  sum.setZero();
  for (int64_t v = 0; v < V; ++v) {
    const auto token = token_of(v);
    lengths[v] = std::sqrt(token.square().sum());
    sum += token / lengths[v];
  }
  for (int64_t v = 0; v < V; ++v) {
    const auto direction = token_of(v) / lengths[v];
    cosines[v] = ((direction * sum).sum() - 1) / static_cast<double>(V - 1);
    const double mean = direction.sum() / static_cast<double>(C);
    variances[v] = (direction - mean).square().sum() / static_cast<double>(C - 1);
  }
  Numbers measures(cosines.data(), kMeasures * V);
  if (!measures.allFinite()) return 0;
  // of each measure: from 0 to 1 over the views
  for (int number = 0; number < kMeasures; ++number) {
    auto measure = measures.segment(number * V, V);
    const double least = measure.minCoeff(), most = measure.maxCoeff();
    measure = (measure - least) / (most - least + 1e-8);
  }
  int64_t nearest = 0;
  double least_off = 0;
  for (int64_t v = 0; v < V; ++v) {
    const double off = std::abs(cosines[v] - 0.5) + std::abs(lengths[v] - 0.5) + std::abs(variances[v] - 0.5);
    if (v == 0 || off < least_off) nearest = v, least_off = off;
  }
  return nearest;
}

}  // namespace page4d
