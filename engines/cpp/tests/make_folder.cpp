// make_folder <plan> <folder>: writes an engine folder of a golden plan, for test programs that cannot.
#include "support/folder.h"

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  page4d::write_folder(argv[2], page4d::plan_named(argv[1]));
}
