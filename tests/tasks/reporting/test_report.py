from darkroom.tasks.reporting.report import PROBLEMS_IN_MESSAGE, first_problems


def test_a_state_message_lists_only_some_problems():
    lines = first_problems([f"Shard {number} could not be worked." for number in range(2000)])
    assert len(lines) == PROBLEMS_IN_MESSAGE + 1
    assert lines[0] == "Shard 0 could not be worked."
    assert "1,995 more" in lines[-1]
