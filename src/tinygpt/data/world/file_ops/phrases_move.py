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
            assign the name {N} to {f}
            change what {f} is called to {N}
            let {f} be called {N}
            update the name of {f} to {N}
            rename {f}, the new name being {N}
            have {f} renamed to {N}
            turn the name of {f} into {N}
            alter the name of {f} to {N}
            title {f} {N} instead
            drop the current name of {f} and call it {N}
            """,
        "ask": """
            can {f} be called {N} instead
            could {f} get the name {N}
            is it possible to change the name of {f} to {N}
            may {f} be renamed to {N}
            could you change the name of {f} so it reads {N}
            would it be possible to rename {f} to {N}
            can the name of {f} be {N}
            can I have {f} renamed as {N}
            """,
        "say": """
            {f} should be called {N}
            I want {f} to be named {N}
            the new name of {f} is {N}
            I'd rather have {f} called {N}
            {f} needs a new name, {N}
            from now on {f} goes by the name {N}
            {f} has the wrong name, it should be {N}
            a better name for {f} would be {N}
            I'd like the name of {f} changed to {N}
            the name of {f} has to be {N}
            I want {N} as the name for {f}
            """,
        "terse": """
            rename {f} to {N}
            rename {f} {N}
            other name for {f}: {N}
            new name for {f}: {N}
            {f} becomes {N}
            call {f} {N}
            name of {f}: now {N}
            {f} renamed to {N}
            retitle {f}: {N}
            """,
    },
    "rename_it": {
        "do": """
            rename it to {N}
            change its name to {N}
            call it {N}
            give it the name {N}
            rename that file to {N}
            retitle it as {N}
            name it {N} instead
            set its name to {N}
            change the name of that file to {N}
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
            bring {f} over to {d}
            carry {f} over to {d}
            stow {f} away in {d}
            tuck {f} into {d}
            pop {f} into {d}
            shove {f} into {d}
            get {f} into {d}
            let {f} live in {d} from now on
            change the location of {f} to {d}
            pick up {f} and put it down in {d}
            """,
        "ask": """
            can {f} go into {d}
            could {f} be moved to {d}
            can we keep {f} in {d} from now on
            could {f} be shifted into {d}
            would you give {f} a place in {d}
            can {f} live in {d} instead
            would it be possible to move {f} to {d}
            """,
        "say": """
            {f} belongs in {d}
            {f} should be in {d}
            I want {f} moved to {d}
            I need {f} to be inside {d}
            {f} has to go into {d}
            the right place for {f} is {d}
            I'd like {f} to be kept in {d} instead
            {f} is in the wrong place, it should go to {d}
            the new home of {f} is {d}
            {f} would be better off in {d}
            I want {f} to sit in {d}
            """,
        "terse": """
            mv {f} to {d}
            move {f} to {d}
            {f} into {d}
            {f} goes in {d}
            {f} -> {d}
            new home for {f}: {d}
            {f}, off to {d}
            new place of {f}: {d}
            {f} over to {d}
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
            shift {f} and {g} over to {d}
            bring both {f} and {g} over to {d}
            stow {f} and {g} in {d}
            relocate {f} and {g} to {d}
            take {f} and {g} and put them both in {d}
            """,
        "say": """
            {f} and {g} belong in {d}
            I want {f} and {g} moved to {d}
            {f} and {g} should both be in {d}
            {f} has to go into {d}, and so does {g}
            I'd like both {f} and {g} to be kept in {d}
            """,
        "terse": """
            mv {f} {g} to {d}
            {f} and {g} into {d}
            move {f}, {g} to {d}
            {f} + {g} -> {d}
            put {f} and {g} into {d}
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
            shift {w} from {d} over to the current folder
            transfer {w} out of {d} to this directory
            bring {w} out of {d} and back here
            relocate {w} from {d} to here
            pull {w} up here from {d}
            carry {w} from {d} over to this folder
            slide {w} out of {d} into the current directory
            move {w} here, it's in {d} at the moment
            bring {w} here from inside {d}
            """,
        "ask": """
            can {w} come out of {d} to this folder
            could {w} be moved here from {d}
            can I have {w} here instead of in {d}
            can {w} be pulled out of {d} into the current folder
            could you bring {w} from {d} over here
            would it be possible to move {w} out of {d} and into this directory
            """,
        "say": """
            {w} should not be in {d} but here
            I want {w} moved out of {d} to here
            {w} in {d} belongs in the current folder
            {w} is in {d}, but it should be here
            I need {w} here rather than inside {d}
            {w} doesn't belong in {d}, it belongs right here
            I'd like {w} taken out of {d} and placed here
            {w} should leave {d} and come here
            {w} has to come out of {d} into this folder
            {w} is misplaced in {d}, move it here
            """,
        "terse": """
            mv {w} from {d} to here
            {w} out of {d}
            move {w} from {d} here
            {w} from {d} to this folder
            bring {w} here from {d}
            pull {w} out of {d} to here
            {d}: move {w} from there to here
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
            transfer {f} into it
            relocate {f} to the new folder
            stow {f} in there
            bring {f} into that folder
            tuck {f} into it
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
            transfer it to {d}
            relocate it to {d}
            stow it in {d}
            bring it over to {d}
            """,
    },
}
