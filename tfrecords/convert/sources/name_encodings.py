"""The encoding of names in tars and zips that are not UTF-8.

Older programs write a zip's names in the encoding of the system that they run on, and no archive says which one. UTF-8
is tried first, because other text is hardly ever valid UTF-8. Otherwise each encoding is rated by what the names would
say in it: letters that are frequent in its language count most, rare ones little, symbols nothing, and a letter of
another script inside a word of Latin letters nearly nothing. All names of a source have one encoding, since a name of
two characters alone may be Korean as well as Chinese.
"""

from __future__ import annotations

import codecs
import itertools
import re
import unicodedata
from collections.abc import Callable, Sequence

from tfrecords.base_errors import UsageError

_ESCAPED = re.compile("[\udc80-\udcff]")
_WORD = re.compile(r"(?:[a-zA-Z]|[^\x00-\x7f])+")
_MAX_RATED = 5_000  # parts of paths
_ACCEPTED = 0.35  # of a rating, 0..1
_CLOSE = 0.06  # a difference of ratings that may be chance

# The most frequent characters of each language, and those of words in names of photos: about two thirds of any text.
_HANGUL = frozenset(
    "가각간갈감갑강개객거건걸검것게겨격견결경계고곡곤골공과관광교구국군굴궁권귀규그근글금급기긴길김까깨꼬꽃꾸끼나낙난날남납낮내너널네녀"
    "년노녹논놀농높누눈뉴는늘능니님다단달닭담당대더덕던덤데도독돈돌동되된두둘드득든들등디딸때떡또라락란람랑래랜량러런레려력련렬령로록론료루"
    "류륙르른름릉리린림립링마막만많말망매맥머먹메면명모목몰못무묵문물미민밀바박반발밤밥방배백버번벌범법베벽변별병보복본볼봄봉부북분불브비"
    "빈빙빛빵사산살삼상새색생서석선설성세센셀소속손솔송수숙순술숨숭스습승시식신실심십싸아악안알암압앙앞애액야약양어억언얼엄업에여역연열"
    "염영예오옥온올옷와완왕외요욕용우욱운울움원월위유육율은을음응의이익인일임입잎자작잔잠장재쟁저적전절점정제조족존종좋주죽준중즉증지직진"
    "질집차착찬참창채책처천철청체초촌총추축출충취치친칠칼커컴컵코콩크큰클키타탁탄탈탑태터털테텐토통투트특티파판팔팡패퍼페펜편평포폭표푸"
    "풍프플피픽필하학한할함합항해핵행향허험현혈협형호혹혼홀홍화확환활황회획횡효후훈휴흐흑희흰히힘"
    "곰귤껍꼬꽁꿀꿩뇌늑닥덩덮댁둑따땅떼뚜뛰뜰뱀벚뻐뽀뿌뿔썰쏘쑥쌀썬앵얼얼왼윤읍잉잣쥐짜짝쩍쪽쭉찍찢찻촬췌칭칸캐캡컬캣켓코쿠쿨퀴킨킹텍텔튀틀펌펭퓨햄햇헌헬헤훼긁흠휠"
)
_HAN = frozenset(
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行学法所民得经十三之进"
    "着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然前外天政四日那社义事平形相全表间样与关各"
    "重新线内数正心反你明看原又么利比或但质气第向道命此变条只没结解问意建月公无系军很情者最立代想已通并提直题党程展五果料象员革位入常文总次品"
    "式活设及管特件长求老头基资边流路级少图山统接知较将组见计别她手角期根论运农指几九区强放决西被干做必战先回则任取据处队南给色光门即保治北造"
    "百规热领七海口东导器压志世金增争济阶油思术极交受联什认六共权收证改清己美再采转更单风切打白教速花带安场身车例真务具万每目至达走积示议声报"
    "斗完类八离华名确才科张信马节话米整空元况今集温传土许步群广石记需段研界拉林律叫且究观越织装影算低持音众书布复容儿须际商非验连断深难近千周"
    "委素技备半办青省列习响约支般史感劳便团往历市克何除消构府称太准精值号率族维划选标写存候毛亲快效院查江型眼王按格养易置派层片始却专状育厂京"
    "识适属圆包火住调满县局照参红细引听该铁价严首底液官德随病苏失尔死讲配女黄推显谈罪神艺呢席含企望密批营项防举球英氧势告李台落木帮轮破师围注"
    "远字材排供河态封另施减树溶怎止案言士均武固叶鱼波视仅费紧爱左章早朝害续轻服试食充兵源判护司足某练差致板田降黑犯负击范继兴似余坚曲输修故城"
    "夫够送笔船占右财吃富春职觉汉画功巴跟虽杂飞检吸助升阳互初创抗考投坏策古径换未跑留钢曾端责站简述钱副尽帝射草冲承独令限阿宣环双请超微让控州"
    "良轴找否纪益依优顶础载倒房突坐粉敌略客袁冷胜绝析块剂测丝协诉念陈仍罗盐友洋错苦夜刑移频逐靠混母短皮终聚汽村云哪既距卫停烈央察烧迅境若印洲"
    "刻括激孔搞甚室待核校散侵吧甲游久菜味旧模湖货损预阻毫普稳乙妈植息扩银语挥酒守拿序纸医缺雨吗针刘啊急唱误训愿审附获茶鲜粮斤孩脱硫肥善龙演父"
    "渐血欢械掌歌沙刚攻谓盾讨晚粒乱燃矛乎杀药宁鲁贵钟煤读班伯香介迫句丰培握兰担弦蛋沉假穿执答乐谁顺烟缩征脸喜松脚困异免背星福买染井概慢怕磁倍"
    "祖皇促静补评翻肉践尼衣宽扬棉希伤操垂秋宜氢套督振架亮末宪庆编牛触映雷销诗座居抓裂胞呼娘景威绿晶厚盟衡鸡孙延危胶屋乡临陆顾掉呀灯岁措束耐剧"
    "玉赵跳哥季课凯胡额款绍卷齐伟蒸殖永宗苗川炉岩弱零杨奏沿露杆探滑镇饭浓航怀赶库夺伊灵税途灭赛归召鼓播盘裁险康唯录菌纯借糖盖横符私努堂域枪润"
    "幅哈竟熟虫泽脑壤碳欧遍侧寨敢彻虑斜薄庭纳弹饲伸折麦湿暗荷瓦塞床筑恶户访塔奇透梁刀旋迹卡氯遇份毒泥退洗摆灰彩卖耗夏择忙铜献硬予繁圈雪函亦抽"
    "篇阵阴丁尺追堆雄迎泛爸楼避谋吨野猪旗累偏典馆索秦脂潮爷豆忽托惊塑遗愈朱替纤粗倾尚痛楚谢奋购磨君池旁碎骨监捕弟暴割贯殊释词亡壁顿宝午尘闻揭"
    "炮残冬桥妇警综招吴付浮遭徐您摇谷赞箱隔订男吹园纷唐败宋玻巨耕坦荣闭湾键凡驻锅救恩剥凝碱齿截炼麻纺禁废盛版缓净睛昌婚涉筒嘴插岸朗庄街藏姑贸"
    "猫狗鸟羊鸭鹅兔虎狮熊鹿猴蛇龟狼狐鼠驴苹蕉橙梨桃瓜奶像册截屏夹昆蝴蝶蜂蚁鹰鸽汤筷碗杯桌椅窗猕鹊鲸鲨虾蟹贝玫瑰菊荷莲竹柳枫"
    "這個來為時們國說對開關車門長東電話書師語體發現實點問題應該後無業與產農員場動種機經過還進運遠選邊達連會學樣氣質變條結見計總線圖資數據試訓練驗"
    "測貓魚鳥雞鴨鵝豬馬龜獅驢蘋檔夾簿風聲號視頻廣類馬裡萬歲樂藝術華愛漢紅綠藍黃銀鐵鐘錶橋樓園湖島龍鳳葉樹頭頁項顏飛飯館"
)

_Weight = Callable[[str], float]


def check_encoding(encoding: str) -> None:
    """Raise UsageError if `encoding` is neither empty nor the name of a text encoding."""
    try:
        is_text = not encoding or bool(codecs.lookup(encoding)._is_text_encoding)
    except (LookupError, ValueError):
        is_text = False
    if not is_text:
        raise UsageError(
            f"--zip_encoding={encoding}: there is no such encoding. Common are {', '.join(_RATERS)}, utf-8."
        )


def decode_names(paths: list[str], encoding: str, location: str, declared: Sequence[int] = ()) -> list[str]:
    """Decode the names in `paths` that are not UTF-8, in place, and return notes.

    Args:
        paths: decoded as UTF-8; other bytes are escaped as by `os.fsdecode`.
        encoding: of the other names; "" has it guessed. If no encoding fits, they stay as they are.
        location: as in `Source`.
        declared: the indices of names that are UTF-8 according to the archive. If one of them is not, the archive's
            word counts for nothing: GNU tar, for example, writes any bytes where its format demands UTF-8.

    Raises:
        UsageError: a name that is not UTF-8 is not valid in the given encoding either.
    """
    rows = [row for row, path in enumerate(paths) if not path.isascii() and _ESCAPED.search(path)]
    if not rows:
        return [f"--zip_encoding={encoding} is not needed: all names are UTF-8"] if encoding else []
    raw = [paths[row].encode("utf-8", "surrogateescape") for row in rows]
    parts = list(dict.fromkeys(part for name in raw for part in name.split(b"/") if not part.isascii()))
    # Two bytes of another encoding may be valid UTF-8 by chance, in a few names; three and more hardly ever are.
    known = set() if any(_ESCAPED.search(paths[row]) for row in declared) else set(declared)
    chance = [
        row
        for row, path in enumerate(paths)
        if row not in known and not path.isascii() and "\x7f" < max(path) < "\u0800"
    ]
    num_other = len(rows)
    if len(chance) < num_other:
        rows += chance
        raw += [paths[row].encode() for row in chance]
    ratings = rate_encodings(parts[:_MAX_RATED])
    chosen = encoding or (ratings[0][1] if ratings and ratings[0][0] >= _ACCEPTED else "")
    if not chosen:
        return [
            f"{len(rows):,} names in {location} are in no encoding that was recognized, and are shown as \\xNN; "
            f"give it as --zip_encoding= ({', '.join(_RATERS)}, …)"
        ]
    unreadable = 0
    for at, (row, name) in enumerate(zip(rows, raw, strict=True)):
        try:
            text = name.decode(chosen)
        except UnicodeDecodeError:
            if at >= num_other:  # it is UTF-8, and not by chance
                continue
            if encoding:
                raise UsageError(
                    f"--zip_encoding={encoding}: the name {paths[row]!r} in {location} is not {encoding}. "
                    "Leave the flag out to have the encoding guessed."
                ) from None
            unreadable += 1
            continue
        paths[row] = text if "/" in text else text.replace("\\", "/")
    if encoding:
        return []
    close = [name for rating, name in ratings[1:] if ratings[0][0] - rating < _CLOSE]
    also = f", or perhaps {' or '.join(close)}" if close else ""
    failed = f"; {unreadable:,} are not" if unreadable else ""
    return [
        f"{len(rows):,} names in {location} are not UTF-8 and were read as {chosen}{also}, e.g. {paths[rows[0]]}"
        f"{failed}; --zip_encoding= names another encoding"
    ]


def rate_encodings(names: Sequence[bytes]) -> list[tuple[float, str]]:
    """Return how plausible `names`, which are not ASCII, are in each encoding, 0..1, and its name; the best first."""
    ratings = []
    for encoding, weight in _RATERS.items():
        total, num_bytes = 0.0, 0
        for name in names:
            num_bytes += sum(byte > 0x7F for byte in name)
            try:
                text = name.decode(encoding)
            except UnicodeDecodeError:
                continue
            total += _rating(text, weight, encoding)
        ratings.append((total / max(num_bytes, 1), encoding))
    return sorted(ratings, key=lambda rating: -rating[0])


def _rating(text: str, weight: _Weight, encoding: str) -> float:
    """Return the sum of the weights of the characters, each times its bytes above 0x7F."""
    total = 0.0
    for word in _WORD.findall(text):
        is_alphabet = any(character.lower() != character.upper() for character in word if not character.isascii())
        odd = 0.6 if is_alphabet and len(word) < 3 else 1.0  # a name of two letters
        if is_alphabet and any(a.islower() and b.isupper() for a, b in itertools.pairwise(word)):
            odd *= 0.3
        for at, character in enumerate(word):
            if character.isascii() or not (value := weight(character)):
                continue
            beside = word[max(at - 1, 0) : at] + word[at + 1 : at + 2]
            if not _is_latin(character):  # of another script, inside a word of Latin letters
                value *= (1.0, 0.1 if is_alphabet else 0.7, 0.1)[sum(one.isascii() for one in beside)]
            elif not beside.isascii():  # words have few letters with accents beside each other
                value *= 0.3
            total += odd * value * sum(byte > 0x7F for byte in character.encode(encoding))
    return total


def _is_latin(character: str) -> bool:
    return unicodedata.name(character, "").startswith("LATIN")


def _is_in(character: str, encoding: str, leads: range) -> bool:
    """Return whether a character has two bytes in an encoding, the first one in `leads`."""
    try:
        data = character.encode(encoding)
    except UnicodeEncodeError:
        return False
    return len(data) == 2 and data[0] in leads


def _korean(character: str) -> float:
    if "가" <= character <= "힣":
        return 1.0 if character in _HANGUL else 0.65 if _is_in(character, "euc_kr", range(0xB0, 0xC9)) else 0.05
    if "ㄱ" <= character <= "ㅣ":
        return 0.5
    return 0.15 if unicodedata.category(character) == "Lo" else 0.0


def _chinese(simplified: bool) -> _Weight:
    encoding, frequent = ("gb2312", range(0xB0, 0xD8)) if simplified else ("big5", range(0xA4, 0xC7))

    def weight(character: str) -> float:
        if character in "，。！？：；（）《》、“”":
            return 0.6
        if not "一" <= character <= "鿿":
            return 0.0
        if not _is_in(character, encoding, range(0x81, 0xFF)):
            return 0.05
        return 1.0 if character in _HAN else 0.5 if _is_in(character, encoding, frequent) else 0.25

    return weight


def _japanese(character: str) -> float:
    if "ぁ" <= character <= "ゖ" or "ァ" <= character <= "ー":
        return 1.0
    if character in "々〆・「」、。（）！？～":
        return 0.6
    if "｡" <= character <= "ﾟ":
        return 0.2
    if "一" <= character <= "鿿":
        if _is_in(character, "cp932", range(0x88, 0x99)):
            return 0.85 if character in _HAN else 0.65
        return 0.2
    return 0.0


def _cyrillic(character: str) -> float:
    return 1.0 if "а" <= character.lower() <= "я" or character in "ёЁ" else 0.0


def _latin(character: str) -> float:
    return 0.95 if _is_latin(character) and character.isalpha() else 0.0


# In the order of preference: of equal ratings, the first one is taken.
_RATERS: dict[str, _Weight] = {
    "cp949": _korean,
    "cp932": _japanese,
    "gbk": _chinese(simplified=True),
    "big5": _chinese(simplified=False),
    "cp866": _cyrillic,
    "cp437": _latin,
}
