// A libcuda.so.1 that records its calls.
#pragma once

#include <array>
#include <string>
#include <vector>

struct FakeLaunch {
  const void* kernel;
  std::array<unsigned, 3> grid;
  std::array<unsigned, 3> block;
  unsigned shared;
  void* stream;
  void** parameters;  // valid until the launcher is gone
};

struct FakeMap {
  const void* address;
  int type;
  std::array<unsigned long, 4> sizes;
  std::array<unsigned long, 3> strides;
  std::array<unsigned, 4> box;
};

struct FakeDriver {
  int init_result = 0;
  int launch_result = 0;
  int capability = 90;
  bool refuses_cubins = false, refuses_ptx = false;
  int libraries = 0;             // loaded
  int prepared = 0;              // kernels loaded on the GPU
  std::vector<unsigned> shared;  // bytes allowed, of each kernel in the order of loading
  std::vector<std::string> symbols;
  std::vector<FakeLaunch> launches;
  std::vector<FakeMap> maps;
};

__attribute__((visibility("default"))) FakeDriver& fake_driver();
