#include "clip/cameras.h"

#include <Eigen/Dense>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdlib>

#include "page4d/error.h"

namespace page4d {
namespace {

using Matrix3 = Eigen::Matrix<double, 3, 3, Eigen::RowMajor>;
using Matrix34 = Eigen::Matrix<double, 3, 4, Eigen::RowMajor>;
using Vector3 = Eigen::Vector3d;

// centres closer than this (relative to their distance from the origin, at least 1) count as the same
constexpr double kCoincident = 1e-6;

struct Pinhole {
  explicit Pinhole(const Camera& camera)
      : K(Eigen::Map<const Matrix3>(camera.K)), pose(Eigen::Map<const Matrix34>(camera.world_to_camera)) {}

  Matrix3 rotation() const { return pose.leftCols<3>(); }
  Vector3 translation() const { return pose.col(3); }
  // The camera's place in the world.
  Vector3 centre() const { return -rotation().transpose() * translation(); }

  Matrix3 K;
  Matrix34 pose;
};

// As Python writes a float: the shortest digits that give it back.
std::string text_of(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[64];
  const std::string scientific(buffer,
                               std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific).ptr);
  const int exponent = std::atoi(scientific.c_str() + scientific.find('e') + 1);
  if (exponent < -4 || exponent >= 16) return scientific;
  const std::string fixed(buffer, std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed).ptr);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

// As Python writes a list of rows.
template <class Matrix>
std::string text_of(const Eigen::MatrixBase<Matrix>& matrix) {
  std::string all;
  for (Eigen::Index row = 0; row < matrix.rows(); ++row) {
    all += row == 0 ? "[" : ", [";
    for (Eigen::Index column = 0; column < matrix.cols(); ++column)
      all += (column == 0 ? "" : ", ") + text_of(matrix(row, column));
    all += "]";
  }
  return "[" + all + "]";
}

template <class Matrix>
void check_finite(const std::string& camera, const char* key, const Matrix& matrix) {
  if (!matrix.allFinite())
    throw Error(Code::kUsage, camera + ": " + key + " has the wrong shape or holds no finite numbers")
        .got(text_of(matrix))
        .allowed("3 rows of " + std::to_string(matrix.cols()));
}

}  // namespace

void check(const Camera& camera, const std::string& name) {
  const Pinhole pinhole(camera);
  const std::string who = "camera " + name;
  check_finite(who, "K", pinhole.K);
  check_finite(who, "world_to_camera", pinhole.pose);
  const Matrix3 rotation = pinhole.rotation();
  const Matrix3 deviation = rotation * rotation.transpose() - Matrix3::Identity();
  if (deviation.cwiseAbs().maxCoeff() > 1e-3 || rotation.determinant() < 0) {
    const Matrix3 shown = rotation.unaryExpr([](double value) { return std::nearbyint(value * 1e4) / 1e4; });
    throw Error(Code::kUsage, who + ": world_to_camera holds no rotation")
        .got(text_of(shown))
        .allowed("orthonormal rows, determinant +1");
  }
  if (pinhole.K(0, 0) <= 0 || pinhole.K(1, 1) <= 0 || std::abs(pinhole.K.determinant()) < 1e-12)
    throw Error(Code::kUsage, who + ": K is not a calibration matrix")
        .got(text_of(pinhole.K))
        .allowed("positive focal lengths in pixels");
}

std::vector<double> fundamental(const std::vector<Camera>& cameras) {
  const std::vector<Pinhole> rig(cameras.begin(), cameras.end());
  std::vector<double> result(rig.size() * rig.size() * 9);
  double* next = result.data();
  for (const Pinhole& source : rig) {
    for (const Pinhole& target : rig) {
      Eigen::Map<Matrix3> F(next);
      next += 9;
      const double size = std::max({1.0, source.centre().norm(), target.centre().norm()});
      if ((source.centre() - target.centre()).norm() <= kCoincident * size) continue;
      const Matrix3 rotation = target.rotation() * source.rotation().transpose();
      const Vector3 t = target.translation() - rotation * source.translation();
      Matrix3 cross;
      cross << 0, -t.z(), t.y(), t.z(), 0, -t.x(), -t.y(), t.x(), 0;
      const Matrix3 line = target.K.inverse().transpose() * cross * rotation * source.K.inverse();
      F = line / line.norm();
    }
  }
  return result;
}

}  // namespace page4d
