"""How people ask to move and rename: mv.

One phrase a line. `do` is a bare command that fits after "please" or "then", `ask` a question, `say` a
statement, `terse` a note, `tail` ends in a free text. Slots: {f} and {g} what exists, as people mention it,
{d} a directory, {w} a bare file name, {N} a bare new name.
"""

PHRASES: dict[str, dict[str, str]] = {
    "rename": {
        "do": """
            rename {f} to {N}
            change the name of {f} to {N}
            give {f} the new name {N}
            rename {f} so that it's called {N}
            call {f} {N} from now on
            set the name of {f} to {N}
            retitle {f} as {N}
            swap the name of {f} for {N}
            make {N} the new name of {f}
            relabel {f} as {N}
            switch the name of {f} over to {N}
            replace the name of {f} by {N}
            edit the name of {f}, it should read {N}
            """,
        "ask": """
            can {f} be called {N} instead
            could {f} get the name {N}
            is it possible to change the name of {f} to {N}
            may {f} be renamed to {N}
            """,
        "say": """
            {f} should be called {N}
            I want {f} to be named {N}
            the new name of {f} is {N}
            I'd rather have {f} called {N}
            {f} needs a new name, {N}
            from now on {f} goes by the name {N}
            """,
        "terse": """
            rename {f} to {N}
            rename {f} {N}
            other name for {f}: {N}
            new name for {f}: {N}
            {f} becomes {N}
            """,
    },
    "rename_it": {
        "do": """
            rename it to {N}
            change its name to {N}
            call it {N}
            give it the name {N}
            rename that file to {N}
            """,
    },
    "move": {
        "do": """
            move {f} to {d}
            move {f} into {d}
            put {f} in {d}
            put {f} into {d}
            shift {f} over to {d}
            drop {f} into {d}
            transfer {f} to {d}
            place {f} inside {d}
            take {f} and move it to {d}
            stick {f} in {d}
            send {f} over to {d}
            relocate {f} to {d}
            file {f} away in {d}
            """,
        "ask": """
            can {f} go into {d}
            could {f} be moved to {d}
            can we keep {f} in {d} from now on
            """,
        "say": """
            {f} belongs in {d}
            {f} should be in {d}
            I want {f} moved to {d}
            I need {f} to be inside {d}
            {f} has to go into {d}
            the right place for {f} is {d}
            """,
        "terse": """
            mv {f} to {d}
            move {f} to {d}
            {f} into {d}
            {f} goes in {d}
            {f} -> {d}
            """,
    },
    "move_two": {
        "do": """
            move {f} and {g} to {d}
            put {f} and {g} in {d}
            move both {f} and {g} into {d}
            drop {f} and {g} into {d}
            transfer {f} and {g} to {d}
            place {f} as well as {g} in {d}
            """,
        "say": """
            {f} and {g} belong in {d}
            I want {f} and {g} moved to {d}
            {f} and {g} should both be in {d}
            """,
        "terse": """
            mv {f} {g} to {d}
            {f} and {g} into {d}
            move {f}, {g} to {d}
            """,
    },
    "move_out": {
        "do": """
            move {w} out of {d}
            take {w} out of {d}
            get {w} out of {d} and put it here
            move {w} from {d} into this folder
            bring {w} from {d} to the current directory
            pull {w} out of {d} into this folder
            move {w} out of {d} to right here
            fetch {w} from {d} and put it in this directory
            lift {w} out of {d} into the current folder
            get {w} back here from {d}
            take {w} from {d} and drop it in the current directory
            retrieve {w} from {d} so it sits in this folder
            """,
        "ask": """
            can {w} come out of {d} to this folder
            could {w} be moved here from {d}
            can I have {w} here instead of in {d}
            """,
        "say": """
            {w} should not be in {d} but here
            I want {w} moved out of {d} to here
            {w} in {d} belongs in the current folder
            {w} is in {d}, but it should be here
            I need {w} here rather than inside {d}
            {w} doesn't belong in {d}, it belongs right here
            """,
        "terse": """
            mv {w} from {d} to here
            {w} out of {d}
            move {w} from {d} here
            {w} from {d} to this folder
            """,
    },
    "move_into_it": {
        "do": """
            move {f} into it
            put {f} in there
            move {f} there
            drop {f} into the new folder
            place {f} inside it
            put {f} into that folder
            shift {f} into it
            """,
    },
    "move_it": {
        "do": """
            move it to {d}
            put it in {d}
            move it into {d}
            drop it into {d}
            shift it over to {d}
            place it inside {d}
            """,
    },
}
