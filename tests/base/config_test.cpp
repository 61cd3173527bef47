#include "base/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/temporary_folder.hpp"

namespace varscale::base {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct Optimizer {
  double lr = 1e-4;
  std::string schedule = "cosine";
  template <class Visitor>
  void visit(Visitor& v) {
    v.field("lr", lr, "peak learning rate", Range<double>::positive());
    v.field("schedule", schedule, "shape of the learning rate", OneOf{"cosine", "constant"});
  }
};

struct Train {
  int64_t batch = 64;
  uint64_t seed = 7;
  bool resume = true;
  std::string note = "none";
  std::vector<int64_t> scales = {1, 2, 3};
  Optimizer optimizer;
  template <class Visitor>
  void visit(Visitor& v) {
    v.field("batch", batch, "images a step", Range<int64_t>::at_least(1));
    v.field("seed", seed, "seed of all random numbers");
    v.field("resume", resume, "go on from the last checkpoint", Identity::kNo);
    v.field("note", note, "free text", Identity::kNo);
    v.field("scales", scales, "side lengths", Range<int64_t>::between(1, 64));
    v.section("optimizer", optimizer, "AdamW");
  }
};

struct Loaded {
  Train train;
  std::vector<std::string> faults;
};

Loaded read(const std::string& text, const std::vector<std::string>& overrides = {}) {
  const Document document = Document::parse(text, "a.yaml", overrides);
  Faults faults;
  Loaded loaded;
  loaded.train = read_config<Train>(document.root().child("train"), faults);
  faults.refuse_unread(document);
  loaded.faults = faults.sentences();
  return loaded;
}

TEST(Config, FillsEveryKindOfField) {
  const Loaded loaded = read(
      "# a comment\n"
      "train:\n"
      "  batch: 1_024\n"
      "  seed: 18446744073709551615\n"
      "  resume: off\n"
      "  note: 12 monkeys\n"
      "  scales: [1, 2, 16]\n"
      "  optimizer: {lr: 3e-4, schedule: constant}\n");
  EXPECT_THAT(loaded.faults, IsEmpty());
  EXPECT_EQ(loaded.train.batch, 1024);
  EXPECT_EQ(loaded.train.seed, 18446744073709551615u);
  EXPECT_FALSE(loaded.train.resume);
  EXPECT_EQ(loaded.train.note, "12 monkeys");
  EXPECT_THAT(loaded.train.scales, ElementsAre(1, 2, 16));
  EXPECT_EQ(loaded.train.optimizer.lr, 3e-4);
  EXPECT_EQ(loaded.train.optimizer.schedule, "constant");
}

TEST(Config, KeepsDefaultsOfWhatIsAbsentOrEmpty) {
  for (const char* text :
       {"", "# nothing\n", "train:\n", "train: {}\n", "train:\n  optimizer:\n"}) {
    const Loaded loaded = read(text);
    EXPECT_THAT(loaded.faults, IsEmpty()) << text;
    EXPECT_EQ(loaded.train.batch, 64);
    EXPECT_EQ(loaded.train.optimizer.lr, 1e-4);
  }
}

struct Faulty {
  std::string text;
  std::string says;
};

TEST(Config, NamesPlaceValueAndExpectationOfEveryFault) {
  const std::vector<Faulty> table = {
      {"train:\n  batch: abc\n", "a.yaml:2: train.batch is 'abc', expected an integer"},
      {"train:\n  batch: 1.5\n", "a.yaml:2: train.batch is '1.5', expected an integer"},
      {"train:\n  batch: 12x\n", "a.yaml:2: train.batch is '12x', expected an integer"},
      {"train:\n  batch: 0x10\n", "a.yaml:2: train.batch is '0x10', expected an integer"},
      {"train:\n  batch: 1__0\n", "a.yaml:2: train.batch is '1__0', expected an integer"},
      {"train:\n  batch: _1\n", "a.yaml:2: train.batch is '_1', expected an integer"},
      {"train:\n  batch: +-1\n", "a.yaml:2: train.batch is '+-1', expected an integer"},
      {"train:\n  batch: ''\n", "a.yaml:2: train.batch is '', expected an integer"},
      {"train:\n  batch: 9223372036854775808\n",
       "a.yaml:2: train.batch is '9223372036854775808', expected an integer"},
      {"train:\n  batch: 1e19\n", "a.yaml:2: train.batch is '1e19', expected an integer"},
      {"train:\n  batch:\n", "a.yaml:2: train.batch is empty, expected an integer"},
      {"train:\n  batch: [1]\n", "a.yaml:2: train.batch is a list, expected an integer"},
      {"train:\n  batch:\n    a: 1\n", "a.yaml:2: train.batch is a map, expected an integer"},
      {"train:\n  batch: 0\n", "a.yaml:2: train.batch is 0, expected at least 1"},
      {"train:\n  seed: -1\n",
       "a.yaml:2: train.seed is '-1', expected an integer from 0 to 2^64 - 1"},
      {"train:\n  resume: 1\n", "a.yaml:2: train.resume is '1', expected true or false"},
      {"train:\n  note: [a]\n", "a.yaml:2: train.note is a list, expected a text"},
      {"train:\n  note: ~\n", "a.yaml:2: train.note is empty, expected a text"},
      {"train:\n  scales: 3\n",
       "a.yaml:2: train.scales is '3', expected a list of integers, as in [1, 2, 3]"},
      {"train:\n  scales:\n    - 1\n    - x\n",
       "a.yaml:4: train.scales[1] is 'x', expected an integer"},
      {"train:\n  scales:\n    - 1\n    - 65\n",
       "a.yaml:4: train.scales[1] is 65, expected between 1 and 64"},
      {"train:\n  optimizer:\n    lr: 0\n", "a.yaml:3: train.optimizer.lr is 0, expected positive"},
      {"train:\n  optimizer:\n    lr: nan\n",
       "a.yaml:3: train.optimizer.lr is 'nan', expected a number"},
      {"train:\n  optimizer:\n    lr: inf\n",
       "a.yaml:3: train.optimizer.lr is 'inf', expected a number"},
      {"train:\n  optimizer:\n    schedule: cosin\n",
       "a.yaml:3: train.optimizer.schedule is 'cosin', expected one of cosine, constant; did you "
       "mean cosine?"},
      {"train:\n  optimizer:\n    schedule: linear\n",
       "a.yaml:3: train.optimizer.schedule is 'linear', expected one of cosine, constant"},
      {"train:\n  optimizer: 3\n", "a.yaml:2: train.optimizer is '3', expected a map of settings"},
      {"train: [1, 2]\n", "a.yaml:1: train is a list, expected a map of settings"},
      {"train:\n  bacth: 3\n", "a.yaml:2: unknown key train.bacth; did you mean train.batch?"},
      {"train:\n  warmup: 3\n", "a.yaml:2: unknown key train.warmup"},
      {"train:\n  optimizer:\n    lrs: {a: 1, b: [2]}\n",
       "a.yaml:3: unknown key train.optimizer.lrs; did you mean train.optimizer.lr?"},
      {"train:\n  batch: 3\ntrian:\n  batch: 4\n",
       "a.yaml:3: unknown key trian; did you mean train?"},
  };
  for (const Faulty& row : table) {
    const Loaded loaded = read(row.text);
    EXPECT_THAT(loaded.faults, ElementsAre(row.says)) << row.text;
    EXPECT_EQ(loaded.train.optimizer.lr, 1e-4);
  }
}

TEST(Config, KeepsTheDefaultsOfFaultyFields) {
  const Loaded loaded =
      read("train: {batch: 0, scales: [1, 0], note: [x], resume: maybe, optimizer: {schedule: x}}");
  EXPECT_EQ(loaded.faults.size(), 5u);
  EXPECT_EQ(loaded.train.batch, 64);
  EXPECT_THAT(loaded.train.scales, ElementsAre(1, 2, 3));
  EXPECT_EQ(loaded.train.note, "none");
  EXPECT_TRUE(loaded.train.resume);
  EXPECT_EQ(loaded.train.optimizer.schedule, "cosine");
}

TEST(Config, CollectsAllFaultsIntoOneErrorWithoutRepeats) {
  const Document document = Document::parse("train:\n  batch: x\n  bacth: 3\n", "a.yaml");
  Faults faults;
  read_config<Train>(document.root().child("train"), faults);
  read_config<Train>(document.root().child("train"), faults);
  faults.refuse_unread(document);
  faults.add("", "and the sum is odd");
  EXPECT_EQ(message_of<UserError>([&] { faults.throw_if_any(); }),
            "a.yaml:2: train.batch is 'x', expected an integer\n"
            "a.yaml:3: unknown key train.bacth; did you mean train.batch?\n"
            "and the sum is odd");
  EXPECT_NO_THROW(Faults().throw_if_any());
}

TEST(Config, TellsUnusedKeysFromUnknownOnes) {
  const Document document = Document::parse("a: 1\nlist:\n  - {x: 1}\n  - {y: 2}\n", "a.yaml");
  document.root().add_known("a");
  Faults faults;
  const std::vector<Node> items = document.root().child("list").items();
  items[0].child("x").as_int(faults, 0);
  faults.refuse_unread(document);
  EXPECT_THAT(faults.sentences(), ElementsAre("a.yaml:1: unused key a: nothing reads it here",
                                              "a.yaml:4: unknown key list[1].y"));
}

TEST(Config, MarksWholeSubtreesAsReadOnRequest) {
  const Document document = Document::parse("a: {b: [1, {c: 2}]}\n", "a.yaml");
  document.root().child("a").mark_read();
  Faults faults;
  faults.refuse_unread(document);
  EXPECT_THAT(faults.sentences(), IsEmpty());
}

TEST(Config, ReadsIntegersInEveryAllowedSpelling) {
  const std::vector<std::pair<std::string, int64_t>> table = {{"0", 0},
                                                              {"-5", -5},
                                                              {"+5", 5},
                                                              {"010", 10},
                                                              {"1e6", 1000000},
                                                              {"2.5e3", 2500},
                                                              {"1_000_000", 1000000},
                                                              {"9223372036854775807", INT64_MAX},
                                                              {"-9223372036854775808", INT64_MIN}};
  for (const auto& [text, expected] : table) {
    Faults faults;
    EXPECT_EQ(Document::parse(text, "a").root().as_int(faults, -1), expected) << text;
    EXPECT_TRUE(faults.empty()) << text;
  }
}

TEST(Config, ReadsDoublesAndBoolsInEveryAllowedSpelling) {
  Faults faults;
  const auto root = [](const char* text) { return Document::parse(text, "a").root(); };
  EXPECT_EQ(root("1e-4").as_double(faults, 0), 1e-4);
  EXPECT_EQ(root("+3").as_double(faults, 0), 3);
  EXPECT_EQ(root(".5").as_double(faults, 0), 0.5);
  EXPECT_EQ(root("1_000.5").as_double(faults, 0), 1000.5);
  for (const char* yes : {"true", "True", "yes", "on", "ON"})
    EXPECT_TRUE(root(yes).as_bool(faults, false));
  for (const char* no : {"false", "No", "off"}) EXPECT_FALSE(root(no).as_bool(faults, true));
  EXPECT_TRUE(faults.empty());
}

TEST(Node, ShowsItsKindKeysItemsPathAndPlace) {
  const Document document = Document::parse("b: 1\na:\n  - x\n  -\nc: {d: ~}\n", "dir/a.yaml");
  const Node root = document.root();
  EXPECT_EQ(root.kind(), Node::Kind::kMap);
  EXPECT_EQ(root.path(), "");
  EXPECT_EQ(root.where(), "dir/a.yaml:1");
  EXPECT_THAT(root.keys(), ElementsAre("b", "a", "c"));
  const std::vector<Node> items = root.child("a").items();
  ASSERT_EQ(items.size(), 2u);
  EXPECT_EQ(items[0].scalar(), "x");
  EXPECT_EQ(items[0].path(), "a[0]");
  EXPECT_EQ(items[0].where(), "dir/a.yaml:3");
  EXPECT_EQ(items[1].kind(), Node::Kind::kNull);
  EXPECT_EQ(root.child("c").child("d").kind(), Node::Kind::kNull);
  EXPECT_EQ(root.child("c").child("d").path(), "c.d");
  const Node absent = root.child("nothing").child("below");
  EXPECT_FALSE(absent.present());
  EXPECT_EQ(absent.path(), "nothing.below");
  EXPECT_EQ(absent.where(), "dir/a.yaml:1");
  Faults faults;
  EXPECT_EQ(absent.as_int(faults, 5), 5);
  EXPECT_TRUE(faults.empty());
  EXPECT_FALSE(Node().present());
}

TEST(Document, ReadsBlockTextsQuotesAndAnEndMark) {
  const Document document =
      Document::parse("a: |\n  one\n  two\nb: 'it''s'\nc: \"\\t\"\n...\n", "a");
  EXPECT_EQ(document.root().child("a").scalar(), "one\ntwo\n");
  EXPECT_EQ(document.root().child("b").scalar(), "it's");
  EXPECT_EQ(document.root().child("c").scalar(), "\t");
  EXPECT_EQ(Document::parse("a: |\n  one", "a").root().child("a").scalar(), "one\n");
}

TEST(Document, RefusesDuplicateKeysWithBothLines) {
  EXPECT_EQ(message_of<UserError>([] { read("train:\n  batch: 1\n  seed: 2\n  batch: 3\n"); }),
            "a.yaml:4: key train.batch is given twice, first at a.yaml:2");
  EXPECT_EQ(message_of<UserError>([] { read("a: [{b: 1, b: 2}]\n"); }),
            "a.yaml:1: key a[0].b is given twice, first at a.yaml:1");
}

TEST(Document, RefusesWhatIsNotOneYamlDocument) {
  const std::vector<Faulty> table = {
      {"a: 1\nb: [1, 2\n", "a.yaml:2: not valid YAML: "},
      {"a: 1\n  b: 2\n", "a.yaml:2: not valid YAML: "},
      {"a: {b: 1\n", "a.yaml:1: not valid YAML: "},
      {"a: *missing\n", "a.yaml:1: not valid YAML: "},
      {"a: 'open\n", "not valid YAML: "},
      {"a: 'open\nb: 3\n", "not valid YAML: "},
      {"a: \"open", "not valid YAML: "},
      {"a:\tb: 1\n\t- c\n", "not valid YAML: "},
      {"a: 1\n---\nb: 2\n", "a.yaml:2: another YAML document begins here, expected one"},
      {"[1, 2]: 3\n", "a.yaml:1: a key of the file is not a plain word"},
      {"a: &x [1, *x]\n", "nested deeper than 100 levels"},
      {std::string(5000, '['), "a.yaml:1: "},
  };
  for (const Faulty& row : table)
    EXPECT_THAT(message_of<UserError>([&] { read(row.text); }), HasSubstr(row.says)) << row.text;
}

TEST(Document, RefusesAliasesThatMultiplyWithoutEnd) {
  std::string text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 9; ++i) {
    const std::string below = fmt::format("*a{}", i - 1);
    text +=
        fmt::format("a{0}: &a{0} [{1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}, {1}]\n", i, below);
  }
  EXPECT_THAT(message_of<UserError>([&] { read(text); }), HasSubstr("more than 100000 values"));
}

TEST(Document, ReadsAliasesAsCopies) {
  const Document document = Document::parse("a: &x {lr: 1}\nb: *x\n", "a.yaml");
  Faults faults;
  EXPECT_EQ(document.root().child("b").child("lr").as_int(faults, 0), 1);
  document.root().child("a");
  faults.refuse_unread(document);  // a.lr was not read, b.lr was
  EXPECT_THAT(faults.sentences(), ElementsAre("a.yaml:1: unknown key a.lr"));
}

TEST(Document, LoadsAFileAndNamesAMissingOne) {
  const TemporaryFolder folder;
  const std::string path = folder.write("depth.yaml", "\ntrain:\n  batch: x\n").string();
  Faults faults;
  const Document document = Document::load(path);
  read_config<Train>(document.root().child("train"), faults);
  EXPECT_EQ(document.name(), path);
  EXPECT_THAT(faults.sentences(),
              ElementsAre(path + ":3: train.batch is 'x', expected an integer"));
  EXPECT_THROW(Document::load(folder / "missing.yaml"), UserError);
}

TEST(Overrides, ReplaceAndAddKeys) {
  const Loaded loaded =
      read("train:\n  batch: 8\n", {"train.batch=16", "train.optimizer.lr=1e-3",
                                    "train.scales=[4, 5]", "train.note=a=b", "train.batch=32"});
  EXPECT_THAT(loaded.faults, IsEmpty());
  EXPECT_EQ(loaded.train.batch, 32);
  EXPECT_EQ(loaded.train.optimizer.lr, 1e-3);
  EXPECT_THAT(loaded.train.scales, ElementsAre(4, 5));
  EXPECT_EQ(loaded.train.note, "a=b");
}

TEST(Overrides, MayBeAllThereIs) {
  EXPECT_EQ(read("", {"train.batch=5"}).train.batch, 5);
  EXPECT_EQ(read("train:\n", {"train.batch=5"}).train.batch, 5);
}

TEST(Overrides, AreNamedInFaults) {
  EXPECT_THAT(read("", {"train.batch=x"}).faults,
              ElementsAre("--set train.batch: train.batch is 'x', expected an integer"));
  EXPECT_THAT(read("", {"train.bacth=3"}).faults,
              ElementsAre("--set train.bacth: unknown key train.bacth; did you mean train.batch?"));
  EXPECT_THAT(read("", {"trian.batch=3"}).faults,
              ElementsAre("--set trian.batch: unknown key trian; did you mean train?"));
}

TEST(Overrides, AreRefusedWhereTheyAreMalformed) {
  const std::vector<Faulty> table = {
      {"train.batch", "--set train.batch: expected key=value"},
      {"=3", "--set =3: expected key=value"},
      {"train..batch=3", "--set train..batch: an empty name"},
      {".batch=3", "--set .batch: an empty name"},
      {"train.=3", "--set train.: an empty name"},
      {"train.batch.size=3", "--set train.batch.size: train.batch is not a map"},
      {"train.batch=[1", "--set train.batch: not valid YAML"},
      {"train.note='x", "--set train.note: not valid YAML"},
      {"train={a: 1, a: 2}", "--set train: key train.a is given twice"},
  };
  for (const Faulty& row : table)
    EXPECT_THAT(message_of<UserError>([&] { read("train:\n  batch: 8\n", {row.text}); }),
                HasSubstr(row.says));
}

TEST(ConfigWriter, DumpsInDeclaredOrderAndIsReadBack) {
  Train train;
  train.batch = 96;
  train.seed = 18446744073709551615u;
  train.optimizer.lr = 0.1;
  train.note = "it's \"odd\": [yes]";
  const auto json = dump_config(train);
  EXPECT_EQ(json.dump(), R"({"batch":96,"seed":18446744073709551615,"resume":true,)"
                         R"("note":"it's \"odd\": [yes]","scales":[1,2,3],)"
                         R"("optimizer":{"lr":0.1,"schedule":"cosine"}})");

  // Through a document built from the JSON, and through the JSON's text as YAML.
  for (const Document& document :
       {Document::from_json(json, "resolved"), Document::parse(json.dump(), "resolved")}) {
    Faults faults;
    const Train back = read_config<Train>(document.root(), faults);
    faults.refuse_unread(document);
    EXPECT_THAT(faults.sentences(), IsEmpty());
    EXPECT_EQ(dump_config(back), json);
  }
}

TEST(ConfigWriter, LeavesOutWhatDoesNotChangeTheNumbers) {
  EXPECT_EQ(
      dump_config(Train{}, true).dump(),
      R"({"batch":64,"seed":7,"scales":[1,2,3],"optimizer":{"lr":0.0001,"schedule":"cosine"}})");
}

TEST(Document, FromJsonNamesTheDocumentInFaults) {
  const Document document = Document::from_json({{"batch", {1.5, nullptr}}}, "resolved");
  Faults faults;
  read_config<Train>(document.root(), faults);
  EXPECT_THAT(faults.sentences(), ElementsAre("resolved: batch is a list, expected an integer"));
}

TEST(ConfigHelp, ListsKeysDefaultsRangesAndHelp) {
  const auto lines = help_config<Train>();
  std::vector<std::string> keys;
  for (const ConfigHelpLine& line : lines) keys.push_back(line.key);
  EXPECT_THAT(keys, ElementsAre("batch", "seed", "resume", "note", "scales", "optimizer.lr",
                                "optimizer.schedule"));
  EXPECT_EQ(lines[0].default_value, "64");
  EXPECT_EQ(lines[0].range, "at least 1");
  EXPECT_EQ(lines[0].help, "images a step");
  EXPECT_EQ(lines[0].identity, Identity::kYes);
  EXPECT_EQ(lines[2].default_value, "true");
  EXPECT_EQ(lines[2].identity, Identity::kNo);
  EXPECT_EQ(lines[4].default_value, "[1, 2, 3]");
  EXPECT_EQ(lines[4].range, "each between 1 and 64");
  EXPECT_EQ(lines[5].default_value, "0.0001");
  EXPECT_EQ(lines[6].range, "one of cosine, constant");
}

TEST(Range, SaysItselfInWordsAndHolds) {
  EXPECT_EQ(Range<int64_t>{}.words(), "any");
  EXPECT_EQ(Range<int64_t>::positive().words(), "positive");
  EXPECT_EQ(Range<int64_t>::at_least(2).words(), "at least 2");
  EXPECT_EQ(Range<double>::between(0, 0.5).words(), "between 0 and 0.5");
  EXPECT_EQ((Range<double>{0, 1, true}).words(), "more than 0 and at most 1");
  EXPECT_EQ((Range<double>{std::numeric_limits<double>::lowest(), 3}).words(), "at most 3");
  EXPECT_FALSE(Range<double>::positive().holds(0));
  EXPECT_TRUE(Range<double>::positive().holds(1e-300));
  EXPECT_TRUE(Range<double>::between(0, 1).holds(0));
  EXPECT_TRUE(Range<double>::between(0, 1).holds(1));
  EXPECT_FALSE(Range<double>::between(0, 1).holds(1.001));
}

TEST(Nearest, FindsTypingMistakesAndNothingElse) {
  const std::vector<std::string> names = {"batch", "depth", "lr", "schedule"};
  EXPECT_EQ(nearest("bacth", names), "batch");  // two letters swapped
  EXPECT_EQ(nearest("depht", names), "depth");
  EXPECT_EQ(nearest("batc", names), "batch");    // one missing
  EXPECT_EQ(nearest("batchh", names), "batch");  // one added
  EXPECT_EQ(nearest("shedul", names), "schedule");
  EXPECT_EQ(nearest("lrs", names), "lr");
  EXPECT_EQ(nearest("wd", names), std::nullopt);
  EXPECT_EQ(nearest("optimizer", names), std::nullopt);
  EXPECT_EQ(nearest("batch", {}), std::nullopt);
}

}  // namespace
}  // namespace varscale::base
