"""Recipes: found, changed from the command line, refused clearly, and the same after a round trip."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeopt.core.errors import RecipeError
from edgeopt.recipes import load
from edgeopt.recipes.load import dump_recipe, list_recipes, load_recipe, shipped_folder
from edgeopt.recipes.schema import Convert, Export, Limits, Measure, ParityLimits, Quantize, Recipe

SHIPPED = [
    "auto",
    "bf16",
    "fp16",
    "fp32",
    "int8-mixed",
    "int8-ptq",
    "int8-ptq-accurate",
    "int8-ptq-advanced",
    "int8-ptq-fp16",
    "int8-qat",
    "prune-int8",
    "prune-int8-ptq",
    "sparse-int8",
    "w4",
    "w4a8",
    "w4a8-qat",
    "w8",
]


def write(folder, text, name="mine.yaml"):
    path = folder / name
    path.write_text(text)
    return path


MINE = (
    "schema_version: 1\nname: mine\nsteps:\n  - quantize: {precision: int8, observer: minmax, bias_correction: false}\n"
)


def test_these_recipes_ship_under_the_names_of_their_files():
    assert [recipe.name for recipe in list_recipes()] == SHIPPED
    assert sorted(path.stem for path in shipped_folder().glob("*.yaml")) == SHIPPED


def test_int8_recipes_promise_at_most_one_percentage_point():
    for recipe in list_recipes():
        assert recipe.limits.drop_pp == (1.0 if recipe.step(Quantize) or recipe.ladder else None)


def test_the_accurate_recipe_differs_from_the_plain_one_in_compile_time_only():
    plain, accurate = load_recipe("int8-ptq").step(Quantize), load_recipe("int8-ptq-accurate").step(Quantize)
    assert not plain.bias_correction
    assert accurate.bias_correction
    assert accurate.calibration_samples > plain.calibration_samples
    assert accurate.skip == plain.skip == ()


def test_a_file_of_ones_own_is_a_recipe(tmp_path):
    path = write(tmp_path, MINE)
    assert load_recipe(path) == load_recipe(str(path))
    assert load_recipe(path).step(Quantize).observer == "minmax"


def test_an_unknown_name_lists_the_shipped_ones_nearest_first():
    with pytest.raises(
        RecipeError,
        match=r"Received: 'int8-pqt'\. Shipped, nearest first: int8-ptq, int8-qat, int8-ptq-fp16, int8-ptq-",
    ):
        load_recipe("int8-pqt")


def test_inside_a_wheel_the_recipes_are_found_beside_the_loader(tmp_path, monkeypatch):
    (tmp_path / "shipped").mkdir()
    write(tmp_path / "shipped", MINE)
    monkeypatch.setattr(load, "__file__", str(tmp_path / "load.py"))
    assert load_recipe("mine").name == "mine"


class TestOverrides:
    @pytest.mark.parametrize(
        ("override", "read", "value"),
        [
            ("steps.quantize.observer=minmax", lambda r: r.step(Quantize).observer, "minmax"),
            ("steps.quantize.skip=[head, 'stem*']", lambda r: r.step(Quantize).skip, ("head", "stem*")),
            ("measure.threads=2", lambda r: r.measure.threads, 2),
            ("measure.threads=null", lambda r: r.measure.threads, None),
            ("measure.batch_sizes=[1, 4]", lambda r: r.measure.batch_sizes, (1, 4)),
            ("limits.drop_pp=0.5", lambda r: r.limits.drop_pp, 0.5),
            ("limits.drop_pp=2", lambda r: r.limits.drop_pp, 2.0),
            ("parity.float_max_abs=1e-2", lambda r: r.parity.float_max_abs, 0.01),
            ("export.dynamic_batch=false", lambda r: r.export.dynamic_batch, False),
            ("objective=size", lambda r: r.objective, "size"),
            ("description=a=b", lambda r: r.description, "a=b"),
        ],
    )
    def test_one_value_is_replaced_and_nothing_else(self, override, read, value):
        changed = load_recipe("int8-ptq", [override])
        assert read(changed) == value
        back = load_recipe("int8-ptq")
        assert read(back) != value
        assert {k for k in Recipe.model_fields if getattr(changed, k) != getattr(back, k)} == {
            override.split(".")[0].split("=")[0]
        }

    def test_the_last_of_two_wins(self):
        assert load_recipe("fp32", ["measure.threads=2", "measure.threads=4"]).measure.threads == 4

    def test_a_step_written_without_options_gets_them(self, tmp_path):
        path = write(tmp_path, "schema_version: 1\nname: mine\nsteps:\n  - convert:\n")
        assert load_recipe(path, ["steps.convert.dtype=float16"]).step(Convert).dtype == "float16"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "steps.quantize.observr=minmax",
                r"unknown key steps\.quantize\.observr; nearest valid key: observer \(all: obs",
            ),
            ("limits.drop_p=1", r"unknown key limits\.drop_p; nearest valid key: drop_pp"),
            ("measre.threads=2", r"unknown key measre; nearest valid key: measure"),
            ("steps.quantize.a.b=1", r"unknown key steps\.quantize\.a; nearest valid key"),
            (
                "steps.quantize.observer=hist",
                r"observer is 'hist'; choose 'minmax', 'moving_average', 'percentile', 'histogram', 'entropy' or 'best'",
            ),
            ("steps.quantize.bias_correction=1", r"bias_correction: choose true, false or try"),
            ("measure.threads=two", r"measure\.threads is 'two': input should be a valid integer"),
            ("measure.threads=true", r"measure\.threads is True: input should be a valid integer"),
            ("measure.threads='2'", r"measure\.threads is '2': input should be a valid integer"),
            (
                "measure.batch_sizes=[1, 0]",
                r"measure\.batch_sizes\[1\] is 0: input should be greater than or equal to 1",
            ),
            ("limits.drop_pp=.nan", r"limits\.drop_pp is '\.nan': input should be a valid number"),
            ("limits.drop_pp=1e999", r"1e999 is too large"),
            ("limits=3", r"limits is 3: input should be an object"),
            ("schema_version=2", r"schema_version is 2; choose 1"),
            (
                "steps=[{prume: {}}]",
                r"steps\[0\] is \{'prume': \{\}\}; it must be one of 'quantize', 'qat', 'finetune', 'distil', 'prune'",
            ),
            ("steps.quantize.skip=[1]", r"steps\.quantize\.skip\[0\] is 1: input should be a valid string"),
            ("steps.quantize.skip=head", r"steps\.quantize\.skip is 'head': input should be a valid array"),
            ("steps=[3]", r"steps\[0\] is 3; it must be a mapping with one key"),
            ("steps=[{quantize: {}}]", r"steps\.quantize\.observer is missing"),
            ("steps.convert.dtype=float16", r"has no step 'convert'.*Its steps: quantize"),
            (
                "steps.quantize.skip=[*x]",
                r"anchors and aliases are not read \(quote text that starts with \* or &\): 'x'",
            ),
            ("steps.quantize.skip=!!python/name:os.system", r"could not determine a constructor for the tag"),
            ("steps.quantize=null", r"goes deeper or less deep than the recipe"),
            ("name.x=1", r"goes deeper or less deep than the recipe"),
            ("measure.threads", r"An override cannot be read\. Received: 'measure\.threads'\. Write KEY=VALUE"),
            ("measure.threads=", r"An override cannot be read"),
            ("measure..threads=1", r"An override cannot be read"),
            ("=1", r"An override cannot be read"),
        ],
    )
    def test_a_wrong_one_is_refused_with_the_full_key(self, override, message):
        with pytest.raises(RecipeError, match=message):
            load_recipe("int8-ptq", [override])

    def test_a_step_that_comes_twice_cannot_be_addressed(self, tmp_path):
        path = write(tmp_path, MINE + MINE.split("steps:\n")[1])
        with pytest.raises(RecipeError, match="has 2 steps 'quantize', so it cannot be changed"):
            load_recipe(path, ["steps.quantize.observer=histogram"])

    def test_an_override_of_something_that_is_no_recipe_is_refused(self, tmp_path):
        with pytest.raises(RecipeError, match="goes deeper or less deep"):
            load_recipe(write(tmp_path, "- 1\n"), ["measure.threads=1"])


class TestHostileFiles:
    def test_a_file_of_aliases_that_grow_is_refused_at_its_first_anchor(self, tmp_path):
        lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
        with pytest.raises(RecipeError, match=r"anchors and aliases are not read.*'a0' at line 1"):
            load_recipe(write(tmp_path, "\n".join(lines)))

    def test_a_tag_is_refused_and_nothing_runs(self, tmp_path):
        proof = tmp_path / "proof"
        text = f"steps: !!python/object/apply:os.system ['touch {proof}']\n"
        with pytest.raises(RecipeError, match="could not determine a constructor for the tag"):
            load_recipe(write(tmp_path, text))
        assert not proof.exists()

    @pytest.mark.parametrize("tag", ["!!binary aGk=", "!!timestamp 2026-01-01", "!!set {a}", "!mine x"])
    def test_other_tags_are_refused_too(self, tmp_path, tag):
        with pytest.raises(RecipeError, match="could not determine a constructor"):
            load_recipe(write(tmp_path, f"name: {tag}\n"))

    def test_a_long_file_is_refused_before_it_is_parsed(self, tmp_path):
        with pytest.raises(RecipeError, match="longer than 65536 bytes"):
            load_recipe(write(tmp_path, "#" * 65537))

    def test_an_endless_file_is_read_no_further_than_the_limit(self):
        with pytest.raises(RecipeError, match=r"cannot be read|longer than"):
            load_recipe("/dev/zero/x.yaml")

    def test_deep_nesting_is_refused(self, tmp_path):
        with pytest.raises(RecipeError, match="nested too deeply"):
            load_recipe(write(tmp_path, "[" * 20000))

    def test_a_number_of_thousands_of_digits_is_refused(self, tmp_path):
        with pytest.raises(RecipeError, match="is not the YAML that edgeopt reads"):
            load_recipe(write(tmp_path, "schema_version: " + "9" * 10000))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\xff\xfe\x00", "is not UTF-8 text"),
            (b"name: a\x00b", "is not the YAML that edgeopt reads"),
            (b"name: [", "is not the YAML that edgeopt reads: .* at line 1"),
            (b"name: a\nname: b\n", r"the key 'name' comes twice at line 2"),
            (b"1: a\n", "a key must be plain text"),
            (b"? [a]\n: b\n", "a key must be plain text"),
            (b"a: 1\n---\nb: 2\n", "expected a single document"),
            (b"", r"is not a mapping\. Received: None"),
        ],
    )
    def test_a_malformed_file_is_one_clear_error(self, tmp_path, content, message):
        path = tmp_path / "bad.yaml"
        path.write_bytes(content)
        with pytest.raises(RecipeError, match=message):
            load_recipe(path)

    def test_a_folder_is_not_a_recipe(self, tmp_path):
        with pytest.raises(RecipeError, match=r"cannot be read\. Received: .*\(Is a directory\)"):
            load_recipe(tmp_path)


positive = st.integers(1, 10**6)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
figures = st.none() | st.floats(allow_nan=False, allow_infinity=False)
shares = st.floats(0, 1, exclude_min=True)
quantizes = st.builds(
    Quantize,
    precision=st.just("int8"),
    observer=st.sampled_from(["minmax", "percentile", "histogram"]),
    percentile=st.floats(50, 100, exclude_min=True),
    bias_correction=st.booleans(),
    calibration_samples=positive,
    batch_size=positive,
    skip=st.lists(texts, max_size=3).map(tuple),
)
converts = st.builds(Convert, dtype=st.just("float16"), keep_float32=st.lists(texts, max_size=3).map(tuple))
recipes = st.builds(
    Recipe,
    schema_version=st.just(1),
    name=texts,
    description=texts,
    steps=st.lists(quantizes | converts, max_size=3).map(tuple),
    export=st.builds(Export, dynamic_batch=st.booleans(), simplify=st.booleans(), batch=positive),
    measure=st.builds(
        Measure,
        batch_sizes=st.lists(positive, max_size=4).map(tuple),
        threads=st.none() | positive,
        latency_samples=st.integers(10, 10**6),
        block=positive,
        warmup=st.integers(0, 10**6),
    ),
    parity=st.builds(
        ParityLimits,
        float_max_abs=st.floats(0, 1e300, exclude_min=True),
        float_cosine=shares,
        int8_sqnr_db=st.floats(-1e9, 1e9),
        int8_top1_agreement=st.floats(0, 1),
        samples=positive,
    ),
    limits=st.builds(
        Limits, drop_pp=figures, latency_ratio=figures, agreement=figures, size_mib=figures, peak_memory_mib=figures
    ),
    objective=st.sampled_from(["latency", "size", "accuracy"]),
)


@settings(max_examples=100, deadline=None)
@given(recipe=recipes)
def test_a_recipe_is_the_same_after_a_round_trip_through_yaml(recipe, tmp_path_factory):
    path = tmp_path_factory.mktemp("round") / "recipe.yaml"
    path.write_text(dump_recipe(recipe), newline="")
    assert load_recipe(path) == recipe
