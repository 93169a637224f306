"""The trajectory viewer: run directories, trainings and tool libraries as a local page. `docs/view.md` describes it.

    places.py   what there is to see under the directories that were named
    index.py    the list of a run, quick with many trajectories
    rows.py     what it knows of each, and what can be asked of it
    detail.py   one trajectory as plain, harmless data
    pages.py    what the other pages say: comparisons, trainings, libraries
    app.py      the routes
    static/     the page itself: no library, no build, nothing from elsewhere

All that is shown was written by a model or a stranger. It leaves here as JSON text without signs that could act or hide
(`harmless.py`), and the page makes text nodes of it, under a policy that runs no script but its own.
"""
