#include "clip/poses.h"

#include <Eigen/Dense>
#include <algorithm>
#include <limits>

namespace page4d {
namespace {

using Matrix3 = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
using Matrix4 = Eigen::Matrix<double, 4, 4, Eigen::RowMajor>;

Matrix3 nearest_rotation(Matrix3 rows) {
  for (int row = 0; row < 3; ++row) rows.row(row) /= std::max(rows.row(row).norm(), 1e-12);
  const Eigen::JacobiSVD<Matrix3> svd(rows, Eigen::ComputeFullU | Eigen::ComputeFullV);
  Matrix3 left = svd.matrixU();
  // the axis that costs least, where the nearest orthogonal matrix is a reflection
  left.col(2) *= (left * svd.matrixV().transpose()).determinant();
  return left * svd.matrixV().transpose();
}

}  // namespace

void camera_to_world(const float* encoded, int64_t n, double* pose) noexcept {
  for (int64_t i = 0; i < n; ++i, encoded += kPoseSize, pose += 16) {
    const Eigen::Matrix<double, kPoseSize, 1> wide =
        Eigen::Map<const Eigen::Matrix<float, kPoseSize, 1>>(encoded).cast<double>();
    Eigen::Map<Matrix4> matrix(pose);
    if (!wide.allFinite()) {
      matrix.setConstant(std::numeric_limits<double>::quiet_NaN());
      continue;
    }
    matrix.setIdentity();
    matrix.topLeftCorner<3, 3>() = nearest_rotation(Eigen::Map<const Matrix3>(wide.data() + 3));
    matrix.topRightCorner<3, 1>() = wide.head<3>();
  }
}

}  // namespace page4d
