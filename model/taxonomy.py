"""The user's categories: what each is called when the model is asked, and what else the model may call it. Knows no prompt's wording and no answer."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator


def normalised(phrase: str) -> str:
    """The phrase as phrases are compared: case and the amount and kind of white space do not matter."""
    return " ".join(phrase.split()).casefold()


class Category(BaseModel):
    """A category of the user's. A bare string stands for a category of that name, asked for by its name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1)
    phrases: tuple[str, ...] = Field(
        (), description="what the model is asked for; empty: the name", validate_default=True
    )
    synonyms: tuple[str, ...] = Field(
        (), description="other words of the model's that mean this category; never asked for"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        value = {"name": value} if isinstance(value, str) else value
        if isinstance(value, Mapping) and not value.get("phrases") and "name" in value:
            return {**value, "phrases": (value["name"],)}
        return value


class Taxonomy(BaseModel):
    """Categories with no phrase or synonym in common. Raises a ValueError that names the place in the job (categories[2].phrases[0]) of the first clash."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    categories: tuple[Category, ...]
    _category_of: dict[str, str] = PrivateAttr(default_factory=dict)
    _synonyms: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="after")
    def _index(self) -> "Taxonomy":
        names: dict[str, int] = {}
        owner: dict[str, str] = {}  # normalised phrase or synonym → where it was said first
        for index, category in enumerate(self.categories):
            here = f"categories[{index}]"
            first = names.setdefault(normalised(category.name), index)
            if first != index:
                raise ValueError(
                    f"{here}: {category.name!r} is the name of categories[{first}] already; give each category its own name"
                )
            places = [(phrase, _field(category, index, number)) for number, phrase in enumerate(category.phrases)]
            places += [(synonym, f"{here}.synonyms[{number}]") for number, synonym in enumerate(category.synonyms)]
            for phrase, field in places:
                if not phrase.strip():
                    raise ValueError(f"{field}: an empty phrase names nothing; write what the model should look for")
                key = normalised(phrase)
                if key in owner:
                    raise ValueError(
                        f"{field}: {phrase!r} is said in {owner[key]} already; a phrase belongs to one category, once"
                    )
                owner[key] = field
                self._category_of[key] = category.name
            self._synonyms.update({normalised(synonym): category.phrases[0] for synonym in category.synonyms})
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The categories' names, in order."""
        return tuple(category.name for category in self.categories)

    @property
    def phrases(self) -> tuple[str, ...]:
        """What the model is asked for, in order of the categories."""
        return tuple(phrase for category in self.categories for phrase in category.phrases)

    @property
    def fields(self) -> tuple[str, ...]:
        """Where in the job each of phrases was written, for errors about it."""
        return tuple(
            _field(category, index, number)
            for index, category in enumerate(self.categories)
            for number in range(len(category.phrases))
        )

    @property
    def synonyms(self) -> Mapping[str, str]:
        """Normalised synonym → the phrase asked for in its place (its category's first)."""
        return dict(self._synonyms)

    def category_of(self, phrase: str) -> str | None:
        """The category that a phrase or synonym belongs to, whatever its case and spaces; None if it belongs to none."""
        return self._category_of.get(normalised(phrase))


def _field(category: Category, index: int, number: int) -> str:
    return f"categories[{index}]" if category.phrases == (category.name,) else f"categories[{index}].phrases[{number}]"
