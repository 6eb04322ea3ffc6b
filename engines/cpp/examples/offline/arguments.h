// The command line.
#pragma once

#include "clip_run.h"

namespace offline {

struct Arguments {
  RunOptions run;
  bool json = false;  // the summary as one JSON document on stdout
  bool help = false;
};

extern const char kHelp[];

// Throws page4d::Error kUsage.
Arguments parse(int count, char** words);

}  // namespace offline
