import pytest

from logitcask.schemas import errors

ERRORS = [one for one in vars(errors).values() if isinstance(one, type)]


@pytest.mark.parametrize("error", ERRORS)
def test_usage_errors_exit_with_status_2_and_all_others_with_1(error):
    assert issubclass(error, errors.LogitcaskError)
    assert error.exit_status == (2 if error is errors.UsageError else 1)


def test_every_error_is_a_value_error():
    assert issubclass(errors.LogitcaskError, ValueError)
