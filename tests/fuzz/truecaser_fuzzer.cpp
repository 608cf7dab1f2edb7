#include <cstddef>
#include <cstdint>
#include <string>

#include "edits.h"
#include "lmfusion/errors.h"
#include "lmfusion/truecaser.h"
#include "truecaser_file.h"

// Any bytes are a truecaser, or a ModelFileError. Inputs are edits of a small file, whose checksum
// is then made to fit.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using lmfusion::TruecaserFile;
  const std::string file = lmfusion::Edited(lmfusion::TinyTruecaserFile(), data, size);
  for (const bool compat : {false, true}) {
    try {
      lmfusion::TruecaserFromBytes(TruecaserFile::Signed(file), compat)
          ->Apply("the new york in may can", "not i 'am mcdonald");
    } catch (const lmfusion::ModelFileError&) {
    }
  }
  return 0;
}
