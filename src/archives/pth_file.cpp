#include "archives/pth_file.hpp"

#include <algorithm>
#include <cstring>

#include "archives/printable.hpp"
#include "base/error.hpp"

namespace varscale::archives {

using base::UserError;

namespace {

constexpr uint64_t kMostPickle = 64 << 20;
// torch stores; a file packed anew by hand may be deflated, but weights hardly shrink.
constexpr ZipLimits kLimits = {.entries = 200'000, .bytes = uint64_t{1} << 42, .ratio = 64};

// The protocol mark and the number with which the older form begins.
constexpr std::string_view kOlderMagic = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

uint64_t bytes_of(const PthStorage& storage) {
  return static_cast<uint64_t>(storage.numel) * base::dtype_size(storage.dtype);
}

}  // namespace

PthFile::PthFile(const std::filesystem::path& path) : path_(path) {
  base::MappedFile file(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file.data()), file.size());
  if (bytes.starts_with("PK")) {
    open_zip();
  } else if (bytes.starts_with(kOlderMagic)) {
    mapped_.emplace(std::move(file));
    open_older();
  } else {
    throw UserError("{}: not a file of torch.save; expected a zip archive, or the form that torch wrote before 1.6",
                    path.string());
  }
}

PthFile::~PthFile() = default;

void PthFile::open_zip() {
  zip_ = std::make_unique<ZipFile>(path_, kLimits);
  // All lies in one folder, whose name differs.
  constexpr std::string_view kPickle = "/data.pkl";
  const ZipEntry* found = nullptr;
  for (const ZipEntry& entry : zip_->entries()) {
    if (!entry.name.ends_with(kPickle) || entry.name.find('/') != entry.name.size() - kPickle.size()) continue;
    if (found) throw UserError("{}: has two data.pkl", path_.string());
    found = &entry;
  }
  if (!found)
    throw UserError("{}: a zip archive, but not one of torch.save: it has no <folder>/data.pkl", path_.string());
  const std::string folder = found->name.substr(0, found->name.size() - kPickle.size());
  if (const ZipEntry* order = zip_->find(folder + "/byteorder")) {
    const std::string text = zip_->read_text(*order, 64);
    if (text != "little")
      throw UserError("{}: its byteorder is '{}'; expected little", path_.string(), printable(text));
  }
  pickle_ = unpickle(zip_->read_text(*found, kMostPickle), path_.string() + ": data.pkl");
  for (const auto& [key, storage] : pickle_.storages()) {
    const ZipEntry* entry = zip_->find(folder + "/data/" + key);
    if (!entry)
      throw UserError("{}: storage '{}' is used, but there is no entry data/{}", path_.string(), printable(key),
                      printable(key));
    if (entry->bytes != bytes_of(storage))
      throw UserError("{}: entry data/{} has {} bytes; {} elements of {} take {}", path_.string(), printable(key),
                      entry->bytes, storage.numel, base::dtype_name(storage.dtype), bytes_of(storage));
    entries_[key] = entry;
  }
}

// Five pickles (a number, the version, the machine's facts, the values, the list of storages), then of each storage
// its length in 8 bytes and its bytes.
void PthFile::open_older() {
  const std::string_view file(reinterpret_cast<const char*>(mapped_->data()), mapped_->size());
  size_t at = kOlderMagic.size();
  const auto next = [&](const char* what) {
    Pickle pickle = unpickle(file.substr(at, kMostPickle), fmt::format("{}: {} at byte {}", path_.string(), what, at));
    at += pickle.end();
    return pickle;
  };
  const Pickle version = next("version");
  if (version.value().kind() != PthValue::Kind::kInt || version.value().integer() != 1001)
    throw UserError("{}: its version is not the 1001 of torch.save", path_.string());
  const Pickle machine = next("machine");
  const auto little = machine.value().find("little_endian");
  if (!little || little->kind() != PthValue::Kind::kBool || !little->boolean())
    throw UserError("{}: its byte order is not little", path_.string());
  pickle_ = next("values");
  const Pickle keys = next("storages");
  if (keys.value().kind() != PthValue::Kind::kList)
    throw UserError("{}: its storages are {}, expected a list", path_.string(), keys.value().kind_name());
  for (size_t i = 0; i < keys.value().size(); ++i) {
    const PthValue key = keys.value().item(i);
    const auto known =
        key.kind() == PthValue::Kind::kText ? pickle_.storages().find(key.text()) : pickle_.storages().end();
    if (known == pickle_.storages().end() || places_.contains(known->first))
      throw UserError("{}: storage {} of its list is used by no tensor, or listed twice", path_.string(), i);
    const uint64_t bytes = bytes_of(known->second);
    int64_t numel = 0;
    if (file.size() - at < sizeof numel || file.size() - at - sizeof numel < bytes)
      throw UserError("{}: truncated in storage '{}'", path_.string(), printable(known->first));
    std::memcpy(&numel, file.data() + at, sizeof numel);
    if (numel != known->second.numel)
      throw UserError("{}: storage '{}' has {} elements, its tensors say {}", path_.string(), printable(known->first),
                      numel, known->second.numel);
    places_[known->first] = at + sizeof numel;
    at += sizeof numel + bytes;
  }
  for (const auto& [key, storage] : pickle_.storages())
    if (!places_.contains(key))
      throw UserError("{}: storage '{}' is used, but not there", path_.string(), printable(key));
  if (at != file.size()) throw UserError("{}: {} bytes behind the last storage", path_.string(), file.size() - at);
}

void PthFile::read_storage(const std::string& key, uint64_t offset, void* out, uint64_t count) const {
  if (count == 0) return;
  if (mapped_)
    std::memcpy(out, mapped_->data() + places_.at(key) + offset, count);
  else
    zip_->read(*entries_.at(key), offset, out, count);
}

void PthFile::read(const PthTensor& tensor, void* out) const {
  const size_t size = base::dtype_size(tensor.dtype), dims = tensor.shape.size();
  const int64_t numel = tensor.numel();
  if (numel == 0) return;
  const uint64_t begin = static_cast<uint64_t>(tensor.offset) * size;
  if (tensor.contiguous()) return read_storage(tensor.storage, begin, out, tensor.bytes());
  int64_t reach = 0;
  for (size_t i = 0; i < dims; ++i) reach += (tensor.shape[i] - 1) * tensor.strides[i];
  std::vector<std::byte> span(static_cast<size_t>(reach + 1) * size);
  read_storage(tensor.storage, begin, span.data(), span.size());
  auto* to = static_cast<std::byte*>(out);
  std::vector<int64_t> place(dims, 0);
  for (int64_t i = 0, from = 0; i < numel; ++i) {
    std::memcpy(to, span.data() + static_cast<size_t>(from) * size, size);
    to += size;
    for (size_t d = dims; d-- > 0;) {  // like an odometer
      from += tensor.strides[d];
      if (++place[d] < tensor.shape[d]) break;
      from -= tensor.shape[d] * tensor.strides[d];
      place[d] = 0;
    }
  }
}

// --- writing -------------------------------------------------------------------------------------
namespace {

constexpr std::string_view kFolder = "archive";
constexpr ZipWriteOptions kAligned = {.align = 64};

std::string_view storage_type(base::DType dtype) {
  switch (dtype) {
    case base::DType::kF64:
      return "DoubleStorage";
    case base::DType::kF32:
      return "FloatStorage";
    case base::DType::kF16:
      return "HalfStorage";
    case base::DType::kBF16:
      return "BFloat16Storage";
    case base::DType::kI64:
      return "LongStorage";
    case base::DType::kI32:
      return "IntStorage";
    case base::DType::kI16:
      return "ShortStorage";
    case base::DType::kI8:
      return "CharStorage";
    case base::DType::kU8:
      return "ByteStorage";
    case base::DType::kBool:
      return "BoolStorage";
    case base::DType::kU16:
      break;
  }
  VARSCALE_CHECK(false, "torch has no storage of {}", base::dtype_name(dtype));
  return {};
}

// Pickle code of protocol 2.
class PickleText {
 public:
  PickleText& code(std::string_view bytes) {
    text_ += bytes;
    return *this;
  }
  PickleText& text(std::string_view value) {
    text_ += 'X';
    little_endian(value.size(), 4);
    text_ += value;
    return *this;
  }
  PickleText& integer(int64_t value) {
    if (value >= 0 && value <= 0x7fffffff) {
      text_ += 'J';
      little_endian(static_cast<uint64_t>(value), 4);
    } else {
      text_ += "\x8a\x08";
      little_endian(static_cast<uint64_t>(value), 8);
    }
    return *this;
  }
  PickleText& tuple(const std::vector<int64_t>& values) {
    text_ += '(';
    for (const int64_t value : values) integer(value);
    text_ += 't';
    return *this;
  }
  const std::string& bytes() const { return text_; }

 private:
  void little_endian(uint64_t value, int count) {
    for (int i = 0; i < count; ++i) text_ += static_cast<char>(value >> (8 * i));
  }
  std::string text_;
};

int64_t numel_of(const PthWriter::Tensor& tensor) {
  int64_t count = 1;
  for (const int64_t size : tensor.shape) {
    VARSCALE_CHECK(size >= 0 && !__builtin_mul_overflow(count, size, &count), "tensor {} of an impossible shape",
                   tensor.name);
  }
  return count;
}

std::string pickle_of(const std::vector<PthWriter::Tensor>& tensors) {
  constexpr std::string_view kEmptyOrderedDict = "ccollections\nOrderedDict\n)R";
  PickleText pickle;
  pickle.code("\x80\x02").code(kEmptyOrderedDict).code("(");
  for (size_t i = 0; i < tensors.size(); ++i) {
    const PthWriter::Tensor& tensor = tensors[i];
    std::vector<int64_t> strides(tensor.shape.size());
    int64_t stride = 1;
    for (size_t d = strides.size(); d-- > 0;) {
      strides[d] = stride;
      stride *= std::max<int64_t>(tensor.shape[d], 1);
    }
    pickle.text(tensor.name).code("ctorch._utils\n_rebuild_tensor_v2\n((").text("storage").code("ctorch\n");
    pickle.code(storage_type(tensor.dtype)).code("\n").text(std::to_string(i)).text("cpu").integer(numel_of(tensor));
    pickle.code("tQ").integer(0).tuple(tensor.shape).tuple(strides).code("\x89").code(kEmptyOrderedDict).code("tR");
  }
  return pickle.code("u.").bytes();
}

}  // namespace

PthWriter::PthWriter(const std::filesystem::path& target, std::vector<Tensor> tensors)
    : zip_(target), tensors_(std::move(tensors)) {
  const std::string folder(kFolder);
  zip_.add(folder + "/data.pkl", pickle_of(tensors_), kAligned);
  zip_.add(folder + "/.format_version", "1", kAligned);
  zip_.add(folder + "/.storage_alignment", "64", kAligned);
  zip_.add(folder + "/byteorder", "little", kAligned);
  begin_next();
}

// Opens the entry of tensor next_; those without bytes are over at once.
void PthWriter::begin_next() {
  for (; next_ < tensors_.size(); ++next_) {
    zip_.begin(fmt::format("{}/data/{}", kFolder, next_), kAligned);
    left_ = static_cast<uint64_t>(numel_of(tensors_[next_])) * base::dtype_size(tensors_[next_].dtype);
    if (left_ > 0) return;
    zip_.end();
  }
}

void PthWriter::write(const void* bytes, size_t count) {
  const auto* at = static_cast<const char*>(bytes);
  while (count > 0) {
    VARSCALE_CHECK(next_ < tensors_.size(), "{} bytes behind the last tensor", count);
    const size_t piece = static_cast<size_t>(std::min<uint64_t>(left_, count));
    zip_.write(at, piece);
    at += piece;
    count -= piece;
    left_ -= piece;
    if (left_ > 0) return;
    zip_.end();
    ++next_;
    begin_next();
  }
}

void PthWriter::commit() {
  VARSCALE_CHECK(next_ == tensors_.size(), "{} bytes of tensor {} are missing", left_, tensors_[next_].name);
  zip_.add(std::string(kFolder) + "/version", "3\n", kAligned);
  zip_.commit();
}

}  // namespace varscale::archives
