// What TensorRT looks up in a plugin library; nothing else is visible.
#include "creator.h"
#include "log.h"

#define PAGE4D_EXPORT extern "C" __attribute__((visibility("default")))

PAGE4D_EXPORT nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count);
PAGE4D_EXPORT void setLoggerFinder(nvinfer1::ILoggerFinder* finder);

nvinfer1::IPluginCreatorInterface* const* getCreators(int32_t& count) {
  static page4d::Creator biased(page4d::Op::kBiasedAttention);
  static page4d::Creator segment(page4d::Op::kSegmentAttention);
  static nvinfer1::IPluginCreatorInterface* const creators[] = {&biased, &segment};
  count = 2;
  return creators;
}

void setLoggerFinder(nvinfer1::ILoggerFinder* finder) { page4d::find_logger_with(finder); }
