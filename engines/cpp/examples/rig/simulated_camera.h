// A simulated camera: a thread that pushes images of a moving disc, with stamps.
#pragma once

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <random>
#include <thread>
#include <vector>

#include "page4d/rig.h"

struct Simulation {
  double seconds = 3, rate = 30;  // of the simulated clock
  double jitter = 0.004;          // seconds, to either side
  double speed = 1;               // simulated seconds in a second
  int dying = -1;                 // a camera; -1: none
  double death = 0, return_at = INFINITY;
};

// A disc in front of a gradient, another colour for each camera.
class Scene {
 public:
  Scene(int width, int height)
      : width_(width), height_(height), pixels_(static_cast<size_t>(width) * static_cast<size_t>(height) * 3) {}

  page4d::Image draw(int camera, double time) {
    const double x = width_ * (0.5 + 0.35 * std::cos(2 * time + camera)),
                 y = height_ * (0.5 + 0.35 * std::sin(2 * time + camera));
    const double radius = 0.12 * height_;
    uint8_t* pixel = pixels_.data();
    for (int row = 0; row < height_; ++row) {
      for (int column = 0; column < width_; ++column, pixel += 3) {
        const bool inside = std::hypot(column - x, row - y) < radius;
        pixel[0] = inside ? 230 : static_cast<uint8_t>(60 + 90 * column / width_);
        pixel[1] =
            inside ? static_cast<uint8_t>(80 + 40 * (camera % 4)) : static_cast<uint8_t>(90 + 60 * row / height_);
        pixel[2] = inside ? 60 : static_cast<uint8_t>(110);
      }
    }
    return {pixels_.data(), width_, height_};
  }

 private:
  int width_, height_;
  std::vector<uint8_t> pixels_;
};

// Pushes images from `start` until the simulation ends or is stopped. For a thread of its own.
inline void film(page4d::Rig& rig, const Simulation& simulation, int camera, page4d::Layout layout,
                 std::chrono::steady_clock::time_point start, const std::atomic<bool>& stopped) {
  using std::chrono::steady_clock;
  Scene scene(static_cast<int>(layout.W), static_cast<int>(layout.H));
  std::mt19937 random(static_cast<unsigned>(camera));
  std::uniform_real_distribution<double> jitter(-simulation.jitter, simulation.jitter);
  const auto images = static_cast<int64_t>(simulation.seconds * simulation.rate);
  for (int64_t k = 0; k < images && !stopped; ++k) {
    const double time = static_cast<double>(k) / simulation.rate, stamp = time + jitter(random);
    if (camera == simulation.dying && time >= simulation.death && time < simulation.return_at) continue;
    const std::chrono::duration<double> passed(stamp / simulation.speed);
    std::this_thread::sleep_until(start + std::chrono::duration_cast<steady_clock::duration>(passed));
    const page4d::Pushed pushed = rig.push(camera, scene.draw(camera, time), std::llround(stamp * 1e9));
    if (!pushed.status) {
      std::fprintf(stderr, "page4d: camera %d: %s\n", camera, pushed.status.message);
      return;
    }
  }
}
