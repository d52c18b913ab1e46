"""How people tie requests together and how politely they open them.

`wrap` goes round one command or a joined one ({a}); the rest joins two or three of them. A leading ~ marks a
joint that does not fix the order ("also"), so it is not used where the second step needs the first; \\n
stands for a line break.
"""

JOINTS: dict[str, str] = {
    "wrap": r"""
        please {a}
        {a} please
        can you {a}?
        could you {a}?
        could you please {a}?
        can you please {a}?
        would you {a}?
        will you {a} for me?
        I want you to {a}
        I'd like you to {a}
        I need you to {a}
        go ahead and {a}
        hey, {a}
        ok, {a}
        just {a}
        now {a}
        kindly {a}
        {a}, thanks
        {a} when you get a chance
        if you don't mind, {a}
        would you be so kind as to {a}?
        help me out here and {a}
        quick favor: {a}
        is there a way for you to {a}?
        hi! please {a}
        do me a favor and {a}
        you can now {a}
        could I get you to {a}?
        any chance you could {a}?
        next job for you: {a}
        so, {a}
        alright, {a}
        hello, could you {a}?
        hi there, {a}
        please go and {a}
        can you quickly {a}?
        would you mind helping out? {a}
        would it be possible for you to {a}?
        if possible, {a}
        whenever you're ready, {a}
        {a}, if that's ok
        {a}, would you?
        {a} for me
        I'd appreciate it if you could {a}
        it would be great if you could {a}
        I was hoping you could {a}
        your task: {a}
        """,
    "do2": r"""
        {a} and {b}
        {a}, then {b}
        {a} and then {b}
        {a}. Then {b}
        {a}. After that, {b}
        {a}, and after that {b}
        {a}, and afterwards {b}
        first {a}, then {b}
        first {a} and next {b}
        {a} and, once that's done, {b}
        {a}. Once that's done, {b}
        {a}. When you're done with that, {b}
        {a}. Next, {b}
        {a}, next {b}
        after you {a}, {b}
        before you {b}, {a}
        {b}, but first {a}
        {a} before you {b}
        1. {a}\n2. {b}
        1) {a} 2) {b}
        step one: {a}. Step two: {b}
        {a}. Now {b}
        {a}, and as a second step {b}
        start with this: {a}. Continue with this: {b}
        {a}. {b}
        ~{a}, also {b}
        ~{a}. Also, {b}
        ~{a}. And {b}
        ~two things: {a} and {b}
        ~- {a}\n- {b}
        ~{a} and also {b}
        ~{a}; {b}
        ~{a}. In addition, {b}
        ~{a}. On top of that, {b}
        {a}, and only then {b}
        {a}. Only after that, {b}
        start by doing this: {a}. Then {b}
        to begin with: {a}. Then {b}
        once you {a}, {b}
        {a}. As soon as that's done, {b}
        {a}, and when that's finished, {b}
        {a}. Following that, {b}
        {a}. Afterwards, {b}
        {a}. And finally, {b}
        first thing: {a}. Second thing: {b}
        First, {a}.\nSecond, {b}
        {a}\nthen {b}
        {b} after you {a}
        I need two things in this order: {a}, then {b}
        ~{a}, plus {b}
        ~{a}, and while you're at it, {b}
        ~{a}. While you're there, {b}
        ~{a}. Oh, and {b}
        ~I'd like both of these done: {a} and {b}
        ~* {a}\n* {b}
        """,
    "do3": r"""
        {a}, {b} and {c}
        {a}, then {b}, then {c}
        {a}, {b}, and then {c}
        first {a}, then {b}, and finally {c}
        {a}. Then {b}. Finally, {c}
        {a}. After that {b}, and then {c}
        {a} and {b}, then {c}
        {a}, and after that {b} and {c}
        1. {a}\n2. {b}\n3. {c}
        1) {a} 2) {b} 3) {c}
        {a}. Next, {b}. At the end, {c}
        {a}, next {b}, and last {c}
        {a}. {b}. {c}
        {a}, then {b} and finally {c}
        first of all {a}, next {b}, and in the end {c}
        {a}. Second, {b}. Third, {c}
        {a}, followed by this: {b}, and then {c}
        {a}. As soon as that's done, {b}, and then {c}
        {a}, and then {b}, and lastly {c}
        step one: {a}. Step two: {b}. Step three: {c}
        once you {a}, {b} and then {c}
        {a}. Once that's done, {b}. Then {c}
        begin with this: {a}. Then {b}. To finish, {c}
        ~three things: {a}, {b}, and {c}
        ~- {a}\n- {b}\n- {c}
        ~{a}; {b}; {c}
        ~{a}, {b}, and also {c}
        ~{a}. Also, {b}. And {c}
        {a}, after that {b}, and to finish {c}
        {a}. Afterwards, {b}. Then {c}
        start like this: {a}. Go on with this: {b}. End with this: {c}
        {a}\nthen {b}\nand finally {c}
        First, {a}.\nSecond, {b}.\nThird, {c}
        {a} and then {b}. When both are done, {c}
        after you {a}, {b}, and then {c}
        {a}, {b}, and once that's done, {c}
        {a}. When you're done, {b}. The last step: {c}
        to begin with, {a}; after that, {b}; finally, {c}
        do these in order: {a}, {b}, {c}
        ~{a}, plus {b} and {c}
        ~{a}. In addition, {b} and {c}
        ~{a}. While you're at it, {b} and {c}
        ~I need three things done: {a}, {b} and {c}
        ~* {a}\n* {b}\n* {c}
        """,
    "terse2": r"""
        {a}, {b}
        {a} then {b}
        {a} && {b}
        {a}; {b}
        {a}\n{b}
        {a} & then {b}
        {a}, then {b}
        1) {a} 2) {b}
        first: {a}, second: {b}
        {a} / {b}
        {a}, after that {b}
        {a}, next {b}
        {a} and then {b}
        {a}, once done {b}
        {a}, afterwards {b}
        a) {a} b) {b}
        step 1 {a}, step 2 {b}
        {a} and after {b}
        {a}, finally {b}
        """,
    "terse3": r"""
        {a}, {b}, {c}
        {a} then {b} then {c}
        {a} && {b} && {c}
        {a}; {b}; {c}
        {a}\n{b}\n{c}
        {a}, {b}, then {c}
        1) {a} 2) {b} 3) {c}
        {a} / {b} / {c}
        {a}, next {b}, last {c}
        {a}, then {b}, finally {c}
        {a}, after that {b}, after that {c}
        a) {a} b) {b} c) {c}
        first: {a}, second: {b}, third: {c}
        {a} and then {b} and then {c}
        """,
    "mix2": r"""
        {a}. Then {b}
        {a}. After that, {b}
        {a}. Once that's done, {b}
        {a}. {b}
        {a}. When that's done, please {b}
        {a}. Next, {b}
        {a}. And then please {b}
        {a}. Now {b}
        {a}. Then you can {b}
        {a}. As soon as that's done, {b}
        {a}. After this, please {b}
        {a}, and then {b}
        ~{a}. Also, {b}
        ~{a}. And please {b}
        ~{a}. On top of that, {b}
        {a}. Afterwards, {b}
        {a}. When you're done, {b}
        {a}. After that, I need you to {b}
        {a}. Then I'd like you to {b}
        {a}. Once you have that, {b}
        {a}. And finally, {b}
        ~{a}. Oh, and {b}
        ~{a}. While you're at it, {b}
        ~{a}. I also need you to {b}
        """,
    "mix3": r"""
        {a}. Then {b} and {c}
        {a}. After that, {b}, and then {c}
        {a}. Then {b}. Finally, {c}
        {a}. Once that's done, {b} and {c}
        {a}. Please {b}, then {c}
        {a}. Next, {b}. After that, {c}
        ~{a}. Also, {b} and {c}
        ~{a}. Please {b}. And {c}
        {a}. Afterwards, {b} and then {c}
        {a}. When that's done, {b}, and finally {c}
        {a}. Now {b}, and after that {c}
        ~{a}. In addition, {b} and {c}
        ~{a}. While you're at it, {b}. And {c}
        """,
}
