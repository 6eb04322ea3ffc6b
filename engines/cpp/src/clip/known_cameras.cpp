#include "clip/known_cameras.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

#include "clip/poses.h"

namespace page4d {
namespace {

using Matrix3 = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
using Matrix4 = Eigen::Matrix<double, 4, 4, Eigen::RowMajor>;
using Pose = Eigen::Map<const Matrix4>;
using Vector3 = Eigen::Vector3d;

constexpr double kLeastDistance =
    0.1;  // of a camera from the first one, at the median; nearer ones are not spread further
constexpr double kLeastVariance = 1e-12;
constexpr int64_t kRobustFrom = 10;       // cameras, as in the public code
constexpr int64_t kMostSampled = 16;      // cameras whose triples are tried
constexpr double kDeviations = 2.5;       // standard deviations, within which a camera agrees
constexpr double kNormalMedian = 1.4826;  // standard deviations per median of absolute errors
constexpr double kLeastSpread = 1e-6;     // of the cameras' extent: nearer ones agree, whatever the median

// x y z w of a rotation, w >= 0.
Eigen::Vector4d quaternion_of(const Matrix3& r) {
  const double trace = r.trace();
  // the largest of the four is computed from the diagonal, the others from it
  const Eigen::Vector4d squares(1 - trace + 2 * r(0, 0), 1 - trace + 2 * r(1, 1), 1 - trace + 2 * r(2, 2), 1 + trace);
  const double xy = r(1, 0) + r(0, 1), xz = r(0, 2) + r(2, 0), yz = r(2, 1) + r(1, 2);
  const double xw = r(2, 1) - r(1, 2), yw = r(0, 2) - r(2, 0), zw = r(1, 0) - r(0, 1);
  Eigen::Matrix4d products;
  products << squares[0], xy, xz, xw, xy, squares[1], yz, yw, xz, yz, squares[2], zw, xw, yw, zw, squares[3];
  Eigen::Index largest = 0;
  squares.maxCoeff(&largest);
  const Eigen::Vector4d quaternion = products.row(largest) / (2 * std::sqrt(squares[largest]));
  return quaternion[3] >= 0 ? quaternion : Eigen::Vector4d(-quaternion);
}

Vector3 centre_of(const double* pose) { return Pose(pose).topRightCorner<3, 1>(); }

struct Similarity {
  double distance(const double* known, const double* estimated) const {
    return (scale * (rotation * centre_of(known)) + shift - centre_of(estimated)).norm();
  }

  double scale;
  Matrix3 rotation;
  Vector3 shift;
};

// What brings the centres of known poses [n,4,4] closest to those of estimated ones (Umeyama 1991), by those at the
// `count` places that `place` gives.
template <typename Place>
Similarity similarity(const double* known, const double* estimated, int64_t count, const Place& place) {
  const auto n = static_cast<double>(count);
  Vector3 known_mean = Vector3::Zero(), estimated_mean = Vector3::Zero();
  for (int64_t i = 0; i < count; ++i) {
    known_mean += centre_of(known + 16 * place(i));
    estimated_mean += centre_of(estimated + 16 * place(i));
  }
  known_mean /= n, estimated_mean /= n;
  Matrix3 covariance = Matrix3::Zero();
  double squares = 0;
  for (int64_t i = 0; i < count; ++i) {
    const Vector3 known_off = centre_of(known + 16 * place(i)) - known_mean,
                  estimated_off = centre_of(estimated + 16 * place(i)) - estimated_mean;
    covariance += estimated_off * known_off.transpose();
    squares += known_off.squaredNorm();
  }
  covariance /= n;
  const Eigen::JacobiSVD<Matrix3> svd(covariance, Eigen::ComputeFullU | Eigen::ComputeFullV);
  const double sign = svd.matrixU().determinant() * svd.matrixV().determinant() < 0 ? -1.0 : 1.0;
  const Vector3 values = svd.singularValues(), signs(1.0, 1.0, sign);
  Similarity result;
  result.scale = values.dot(signs) / std::max(squares / n, kLeastVariance);
  result.rotation = svd.matrixU() * signs.asDiagonal() * svd.matrixV().transpose();
  result.shift = estimated_mean - result.scale * (result.rotation * known_mean);
  return result;
}

double similarity_scale(const double* known, const double* estimated, int64_t n) {
  return similarity(known, estimated, n, [](int64_t i) { return i; }).scale;
}

// The scale by those of the poses, n >= 4, that agree on a similarity: least median of squares over triples, in the
// order of page4d/network/known_cameras.py, which says how. distances, places: scratch memory, of n numbers each.
double robust_scale(const double* known, const double* estimated, int64_t n, double* distances, int64_t* places) {
  const int64_t sampled = std::min(n, kMostSampled);
  const auto sample = [&](int64_t i) { return n == sampled ? i : i * (n - 1) / (sampled - 1); };
  double best_median = std::numeric_limits<double>::infinity();
  Similarity best{};
  for (int64_t i = 0; i < sampled; ++i)
    for (int64_t j = i + 1; j < sampled; ++j)
      for (int64_t k = j + 1; k < sampled; ++k) {
        const int64_t triple[] = {sample(i), sample(j), sample(k)};
        const Similarity candidate = similarity(known, estimated, 3, [&](int64_t corner) { return triple[corner]; });
        for (int64_t at = 0; at < n; ++at) distances[at] = candidate.distance(known + 16 * at, estimated + 16 * at);
        std::nth_element(distances, distances + n / 2, distances + n);
        if (distances[n / 2] < best_median) best_median = distances[n / 2], best = candidate;
      }
  if (std::isinf(best_median)) return 0;
  Vector3 mean = Vector3::Zero();
  for (int64_t i = 0; i < n; ++i) mean += centre_of(estimated + 16 * i);
  mean /= static_cast<double>(n);
  double spread = 0;
  for (int64_t i = 0; i < n; ++i) spread = std::max(spread, (centre_of(estimated + 16 * i) - mean).norm());
  const double deviations = kDeviations * kNormalMedian * (1 + 5 / static_cast<double>(n - 3));
  const double most = std::max(deviations * best_median, kLeastSpread * spread);
  int64_t agree = 0;
  for (int64_t i = 0; i < n; ++i)
    if (best.distance(known + 16 * i, estimated + 16 * i) <= most) places[agree++] = i;
  return similarity(known, estimated, agree, [&](int64_t i) { return places[i]; }).scale;
}

}  // namespace

KnownCameras::KnownCameras(const std::vector<Camera>& cameras) {
  for (const Camera& camera : cameras) {
    K_.insert(K_.end(), camera.K, camera.K + 9);
    world_to_camera_.insert(world_to_camera_.end(), camera.world_to_camera, camera.world_to_camera + 12);
    world_to_camera_.insert(world_to_camera_.end(), {0.0, 0.0, 0.0, 1.0});
  }
  poses_.resize(world_to_camera_.size()), known_.resize(poses_.size()), estimated_.resize(poses_.size());
  distances_.resize(cameras.size()), places_.resize(cameras.size());
  for (size_t i = 0; i < cameras.size(); ++i) inverse_pose(world_to_camera_.data() + 16 * i, poses_.data() + 16 * i);
}

std::vector<double> KnownCameras::encoded(int64_t H, int64_t W) {
  std::vector<double> all(static_cast<size_t>(kQuaternionNumbers * views()));
  encode(H, W, nullptr, all.data());
  return all;
}

void KnownCameras::encode(int64_t H, int64_t W, const uint8_t* present, double* target) noexcept {
  std::fill_n(target, kQuaternionNumbers * views(), 0.0);
  size_t count = 0, first = 0;
  for (size_t v = 0; v < distances_.size(); ++v) {
    if (present != nullptr && present[v] == 0) continue;
    if (count == 0) first = v;
    const Matrix4 from_first = Pose(world_to_camera_.data() + 16 * v) * Pose(poses_.data() + 16 * first);
    inverse_pose(from_first.data(), known_.data() + 16 * v);
    distances_[count++] = centre_of(known_.data() + 16 * v).norm();
  }
  if (count == 0) return;
  const auto end = distances_.begin() + static_cast<std::ptrdiff_t>(count);
  std::sort(distances_.begin(), end);
  const double unit = std::max(distances_[(count - 1) / 2], kLeastDistance);
  for (size_t v = 0; v < distances_.size(); ++v, target += kQuaternionNumbers) {
    if (present != nullptr && present[v] == 0) continue;
    const Pose pose(known_.data() + 16 * v);
    const Vector3 translation = centre_of(pose.data()) / unit;
    const Eigen::Vector4d quaternion = quaternion_of(pose.topLeftCorner<3, 3>());
    std::copy_n(translation.data(), 3, target);
    std::copy_n(quaternion.data(), 4, target + 3);
    const double* K = K_.data() + 9 * v;
    target[7] = 2 * std::atan(static_cast<double>(H) / 2 / K[4]);
    target[8] = 2 * std::atan(static_cast<double>(W) / 2 / K[0]);
  }
}

double KnownCameras::scale(const double* camera, const uint8_t* present) noexcept {
  int64_t count = 0;
  for (int64_t v = 0; v < views(); ++v) {
    if (present != nullptr && present[v] == 0) continue;
    if (!centre_of(camera + 16 * v).allFinite()) return 1;
    std::copy_n(poses_.data() + 16 * v, 16, known_.data() + 16 * count);
    std::copy_n(camera + 16 * v, 16, estimated_.data() + 16 * count++);
  }
  const double scale = count < kRobustFrom
                           ? similarity_scale(known_.data(), estimated_.data(), count)
                           : robust_scale(known_.data(), estimated_.data(), count, distances_.data(), places_.data());
  return std::isfinite(scale) && scale > 0 ? scale : 1;
}

}  // namespace page4d
