// make_folder <plan> <folder>: an engine folder of a golden plan, for tests that are programs of their own.
#include "support/folder.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  page4d::write_folder(argv[2], page4d::plan_named(argv[1]));
}
