// make_folder <plan> <folder>: an engine folder of a golden plan, for tests that are programs of their own.
#include "support/folder.h"

int main(int count, char** words) {
  if (count != 3) return 2;
  page4d::write_folder(words[2], page4d::plan_named(words[1]));
}
