#include "clip/poses.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

namespace page4d {
namespace {

using Matrix3 = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
using Matrix4 = Eigen::Matrix<double, 4, 4, Eigen::RowMajor>;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kPi = 3.14159265358979323846;

Matrix3 nearest_rotation(Matrix3 rows) {
  for (int row = 0; row < 3; ++row) rows.row(row) /= std::max(rows.row(row).norm(), 1e-12);
  const Eigen::JacobiSVD<Matrix3> svd(rows, Eigen::ComputeFullU | Eigen::ComputeFullV);
  Matrix3 left = svd.matrixU();
  // the axis that costs least, where the nearest orthogonal matrix is a reflection
  left.col(2) *= (left * svd.matrixV().transpose()).determinant();
  return left * svd.matrixV().transpose();
}

// Of a quaternion x y z w and its length.
Matrix3 rotation_of(const double* quaternion, double length) {
  const double x = quaternion[0] / length, y = quaternion[1] / length, z = quaternion[2] / length,
               w = quaternion[3] / length;
  Matrix3 rotation;
  rotation << 1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w),  //
      2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w),          //
      2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y);
  return rotation;
}

double length_of(const double* quaternion) {
  double squares = 0;
  for (int i = 0; i < 4; ++i) squares += quaternion[i] * quaternion[i];
  return std::sqrt(squares);
}

double focal_of(float fov, int64_t side) {
  const auto angle = static_cast<double>(fov);
  return angle > 0 && angle < kPi ? static_cast<double>(side) / 2 / std::tan(angle / 2) : kNan;
}

void write_pose(const Matrix3& rotation, const Eigen::Vector3d& translation, double* pose) {
  Eigen::Map<Matrix4> matrix(pose);
  matrix.setIdentity();
  matrix.topLeftCorner<3, 3>() = rotation;
  matrix.topRightCorner<3, 1>() = translation;
}

void write_inverse(const Matrix3& rotation, const Eigen::Vector3d& translation, double* pose) {
  const Matrix3 turned = rotation.transpose();
  write_pose(turned, -turned * translation, pose);
}

void write_world(const double* pose, double x, double y, double z, float* world) {
  for (int row = 0; row < 3; ++row, pose += 4)
    world[row] = static_cast<float>(pose[0] * x + pose[1] * y + pose[2] * z + pose[3]);
}

}  // namespace

void camera_to_world(const float* numbers, int64_t size, int64_t n, PoseDirection direction, double* pose) noexcept {
  for (int64_t i = 0; i < n; ++i, numbers += size, pose += 16) {
    double wide[kMostCameraNumbers];
    std::copy(numbers, numbers + size, wide);
    Eigen::Map<Matrix4> matrix(pose);
    const double length = size == kQuaternionNumbers ? length_of(wide + 3) : 1;
    if (!std::all_of(wide, wide + size, [](double number) { return std::isfinite(number); }) || !(length > 0)) {
      matrix.setConstant(kNan);
      continue;
    }
    const Eigen::Map<const Eigen::Vector3d> translation(wide);
    const Matrix3 rotation = size == kQuaternionNumbers ? rotation_of(wide + 3, length)
                                                        : nearest_rotation(Eigen::Map<const Matrix3>(wide + 3));
    if (size == kQuaternionNumbers && direction == PoseDirection::kWorldToCamera)
      write_inverse(rotation, translation, pose);
    else
      write_pose(rotation, translation, pose);
  }
}

void inverse_pose(const double* pose, double* inverse) noexcept {
  const Eigen::Map<const Matrix4> matrix(pose);
  write_inverse(matrix.topLeftCorner<3, 3>(), matrix.topRightCorner<3, 1>(), inverse);
}

void intrinsics(const float* numbers, int64_t n, int64_t H, int64_t W, double* K) noexcept {
  for (int64_t i = 0; i < n; ++i, numbers += kQuaternionNumbers, K += 9) {
    const double values[9] = {focal_of(numbers[8], W),
                              0,
                              static_cast<double>(W) / 2,
                              0,
                              focal_of(numbers[7], H),
                              static_cast<double>(H) / 2,
                              0,
                              0,
                              1};
    std::copy(values, values + 9, K);
  }
}

void unproject(const float* depth, const double* K, const double* pose, int64_t H, int64_t W, float* points) noexcept {
  const double fx = K[0], fy = K[4], cx = K[2], cy = K[5];
  for (int64_t v = 0; v < H; ++v) {
    const double slope = (static_cast<double>(v) - cy) / fy;
    for (int64_t u = 0; u < W; ++u, ++depth, points += 3) {
      const auto z = static_cast<double>(*depth);
      write_world(pose, (static_cast<double>(u) - cx) / fx * z, slope * z, z, points);
    }
  }
}

void to_world(const float* points, const double* pose, int64_t n, float* world) noexcept {
  for (int64_t i = 0; i < n; ++i, points += 3, world += 3)
    write_world(pose, static_cast<double>(points[0]), static_cast<double>(points[1]), static_cast<double>(points[2]),
                world);
}

}  // namespace page4d
