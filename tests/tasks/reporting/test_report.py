from darkroom.tasks.reporting.report import PROBLEMS_IN_MESSAGE, PROBLEMS_SHOWN, first_problems, problems_markdown


def test_a_state_message_lists_only_some_problems():
    lines = first_problems([f"Shard {number} could not be processed." for number in range(2000)])
    assert len(lines) == PROBLEMS_IN_MESSAGE + 1
    assert lines[0] == "Shard 0 could not be processed."
    assert "1,995 more" in lines[-1]


def test_a_summary_lists_more_problems_with_bold_reasons():
    *shown, more = problems_markdown([f"Shard {number} is lost. Start workers." for number in range(50)])
    assert len(shown) == PROBLEMS_SHOWN
    assert shown[1] == "**Shard 1 is lost.** Start workers."
    assert more == "And 30 more such problems."
