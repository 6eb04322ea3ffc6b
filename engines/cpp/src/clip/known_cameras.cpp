#include "clip/known_cameras.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>

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

double sign_of(double value) { return value > 0 ? 1.0 : value < 0 ? -1.0 : 0.0; }

// The scale of the similarity that brings the centres of known poses [n,4,4] closest to those of estimated ones
// (Umeyama 1991).
double similarity_scale(const double* known, const double* estimated, int64_t n) noexcept {
  const auto count = static_cast<double>(n);
  Vector3 known_mean = Vector3::Zero(), estimated_mean = Vector3::Zero();
  for (int64_t i = 0; i < n; ++i) {
    known_mean += centre_of(known + 16 * i);
    estimated_mean += centre_of(estimated + 16 * i);
  }
  known_mean /= count, estimated_mean /= count;
  Matrix3 covariance = Matrix3::Zero();
  double squares = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Vector3 known_off = centre_of(known + 16 * i) - known_mean,
                  estimated_off = centre_of(estimated + 16 * i) - estimated_mean;
    covariance += estimated_off * known_off.transpose();
    squares += known_off.squaredNorm();
  }
  covariance /= count;
  const Eigen::JacobiSVD<Matrix3> svd(covariance, Eigen::ComputeFullU | Eigen::ComputeFullV);
  const double sign = sign_of(svd.matrixU().determinant()) * sign_of(svd.matrixV().determinant());
  const Vector3 values = svd.singularValues();
  return (values[0] + values[1] + (sign < 0 ? -values[2] : values[2])) / std::max(squares / count, kLeastVariance);
}

}  // namespace

KnownCameras::KnownCameras(const std::vector<Camera>& cameras) {
  for (const Camera& camera : cameras) {
    K_.insert(K_.end(), camera.K, camera.K + 9);
    world_to_camera_.insert(world_to_camera_.end(), camera.world_to_camera, camera.world_to_camera + 12);
    world_to_camera_.insert(world_to_camera_.end(), {0.0, 0.0, 0.0, 1.0});
  }
  poses_.resize(world_to_camera_.size());
  for (size_t i = 0; i < cameras.size(); ++i) inverse_pose(world_to_camera_.data() + 16 * i, poses_.data() + 16 * i);
}

std::vector<double> KnownCameras::encoded(int64_t H, int64_t W) const {
  const auto count = static_cast<size_t>(views());
  std::vector<double> poses(poses_.size()), distances, all;
  for (size_t i = 0; i < count; ++i) {
    const Matrix4 from_first = Pose(world_to_camera_.data() + 16 * i) * Pose(poses_.data());
    inverse_pose(from_first.data(), poses.data() + 16 * i);
    distances.push_back(centre_of(poses.data() + 16 * i).norm());
  }
  std::sort(distances.begin(), distances.end());
  const double unit = std::max(distances[(count - 1) / 2], kLeastDistance);
  for (size_t i = 0; i < count; ++i) {
    const Pose pose(poses.data() + 16 * i);
    const Vector3 translation = centre_of(pose.data()) / unit;
    const Eigen::Vector4d quaternion = quaternion_of(pose.topLeftCorner<3, 3>());
    all.insert(all.end(), translation.data(), translation.data() + 3);
    all.insert(all.end(), quaternion.data(), quaternion.data() + 4);
    const double* K = K_.data() + 9 * i;
    all.push_back(2 * std::atan(static_cast<double>(H) / 2 / K[4]));
    all.push_back(2 * std::atan(static_cast<double>(W) / 2 / K[0]));
  }
  return all;
}

double KnownCameras::scale(const double* camera) const noexcept {
  for (int64_t i = 0; i < views(); ++i) {
    if (!centre_of(camera + 16 * i).allFinite()) return 1;
  }
  const double scale = similarity_scale(poses_.data(), camera, views());
  return std::isfinite(scale) && scale > 0 ? scale : 1;
}

}  // namespace page4d
