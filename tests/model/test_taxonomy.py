import pytest
from pydantic import ValidationError

from model.taxonomy import Taxonomy


def test_bare_names_are_their_own_phrases():
    taxonomy = Taxonomy.model_validate({"categories": ["person", "dog"]})
    assert taxonomy.names == taxonomy.phrases == ("person", "dog")
    assert taxonomy.fields == ("categories[0]", "categories[1]")
    assert taxonomy.category_of(" PERSON ") == "person"
    assert taxonomy.category_of("shadow") is None


def test_phrases_and_synonyms():
    taxonomy = Taxonomy.model_validate(
        {"categories": [{"name": "vehicle", "phrases": ["car", "truck"], "synonyms": ["Sports  car"]}, "person"]}
    )
    assert taxonomy.phrases == ("car", "truck", "person")
    assert taxonomy.fields == ("categories[0].phrases[0]", "categories[0].phrases[1]", "categories[1]")
    assert taxonomy.category_of("sports car") == "vehicle"
    assert taxonomy.category_of("vehicle") is None  # nobody asks for it
    assert taxonomy.synonyms == {"sports car": "car"}


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (["person", "Person"], r"categories\[1\]: 'Person' is the name of categories\[0\]"),
        (
            ["dog", {"name": "animal", "phrases": ["cat", "DOG"]}],
            r"categories\[1\].phrases\[1\]: 'DOG' is said in categories\[0\]",
        ),
        ([{"name": "dog", "synonyms": ["dog"]}], r"categories\[0\].synonyms\[0\]"),
        ([{"name": "dog", "phrases": [" "]}], r"categories\[0\].phrases\[0\]: an empty phrase"),
    ],
)
def test_clashes_name_their_place(categories, message):
    with pytest.raises(ValidationError, match=message):
        Taxonomy.model_validate({"categories": categories})


def test_categories_may_be_empty_here():
    assert Taxonomy(categories=()).phrases == ()  # whether a task needs one is the prompts' matter
